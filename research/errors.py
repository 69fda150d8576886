"""The messages of the studies, in the form of spacy_mmcot.errors."""

from __future__ import annotations

from spacy_mmcot.errors import Catalogue


class StudyErrors(metaclass=Catalogue):
    E216 = (
        "{path}: all pictures are the same, so they cannot be shuffled. Give more data, or leave "
        "the way shuffled out."
    )
    E217 = (
        "{path}: no doc is labelled with entities, so changed copies could not be scored. Give "
        "labelled data, such as the dev split."
    )
    E218 = (
        "No unseen name for the labels {labels}: of the {count} names in the given files, none "
        "with one of these labels is absent from the seen texts and has one label only. Give more "
        "labelled files with --names, or fewer with --unseen-in."
    )

    E702 = "{name!r} is no run of the plan. Allowed: {allowed}."
    E703 = "{path} is no experiment plan: {reason}. See research/plans for the form."
    E704 = (
        "A step of the experiment failed (its message is above): {command}. Correct the cause and "
        "run the same command again; finished runs are kept."
    )
    E706 = "No run of the plan has the seed {seed}. Allowed: {allowed}."
    E707 = (
        "{path} and the overrides of the plan make no config: {reason}. An override names an "
        "existing section and a key, such as training.dropout."
    )
    E714 = "--fraction is {received}. Allowed: a number above 0, at most 1, such as 0.05."
    E715 = "--rename-label {received!r}. Expected: OLD=NEW, such as OTHER=MISC; each OLD once."
    E716 = "No post is of the domain {received}. Domains of the input: {allowed}."
    E717 = (
        "The change swap needs other names. Give labelled data with --names, or choose other "
        "changes with --change."
    )
    E718 = "--rate is {received}. Allowed: a number from 0 to 1."
    E719 = (
        "{path} holds no run of the plan {plan}. Run it first: python -m research run "
        "research/plans/{plan}.yaml CORPUS."
    )
    E721 = (
        "{address} could not be had: {reason}. Give the address of Debian's package "
        "openclipart-png 0.18+dfsg-19, or download it and give the file with --archive."
    )
    E722 = (
        "{path} could not be read: {reason}. Expected: Debian's package openclipart-png, a file "
        "ending in .deb."
    )
    E720 = "No post is of the split {split}. Give another --only."

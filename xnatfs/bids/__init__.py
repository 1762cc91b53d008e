"""A project as a BIDS dataset: which scan becomes which file, under which name. Pure: no network, no tree.

    mapping.py          the map: ordered rules from type, description, frames and file name to a BIDS name
    map_file.py         a map as a `bids.toml`: read and checked
    lab_maps.py         what a lab has for another program, as a map: the first there is of
    dcm2bids.py         ... dcm2bids' configuration
    xnat_map.py         ... XNAT's BIDS maps
    reproin.py          ... ReproIn's names
    bidskit.py          ... bidskit's translator
    bids_names.py       names that these give files, checked
    guesses.py          dcm2niix's guesses, as a suggestion
    default_rules.py    the rules for the usual scan types, which every map stands on
    patterns.py         the patterns of rules, and the task in a description
    schema.py           what BIDS demands of each kind of file
    file_names.py       labels that are legal in BIDS, and file names made of entities
    image_files.py      image files of a scan: what the end of a name written by dcm2niix says
    bids_image.py       an image of a scan on its way to a name
    run_numbers.py      several images of one name: runs by time, or the last one
    field_maps.py       what field maps are for: IntendedFor, B0FieldIdentifier, echo times
    dataset.py          the files of one session: path -> what it is
    sidecars.py         the bytes of a sidecar, and the few numbers a NIfTI header has
    metadata_files.py   dataset_description.json, participants.tsv, unmapped.tsv ...

Used by `tree.bids_view`.
Threading: immutable values and pure functions.
"""

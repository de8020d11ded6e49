"""Reads CT files to HU and writes them, with SimpleITK and pydicom.

    volume = read_volume("scan/")              # a DICOM series; or scan.nii.gz, ...
    write_volume(volume, "copy.nii.gz")        # the extension selects the format

    with open_volume("scan/") as source:       # the same slice by slice
        with slice_writer(source, source.shape, "copy.mha") as write:
            for index in range(source.shape[0]):
                write(source.read(index).hu, {})

| input                     | notes                                                   |
|---------------------------|---------------------------------------------------------|
| folder of a DICOM series  | see `dicom_series`; any file names, compressed or not   |
| .dcm, or no extension     | a single DICOM slice                                    |
| .nii .nii.gz .mha .mhd    | integer or float, in HU; 2-D or 3-D                     |
| .nrrd                     | likewise                                                |
| .png                      | 8 or 16 bits of grey; HU if the window it was made with |
|                           | is stated, else `Volume.unit` is 'grey'; no spacing     |

Pixels outside the field of view (-2000, -3024, PixelPaddingValue) become -1024 HU. A
faulty file raises a `common.errors.UserError` that names it.
"""

from ipv2.ct_io.dicom_dose import at_dose
from ipv2.ct_io.dicom_series import folder_files
from ipv2.ct_io.formats import SUFFIXES, format_of, stem_of, suffix_of
from ipv2.ct_io.listing import (
    Found,
    Item,
    PairedPaths,
    PairItem,
    count_slices,
    describe_skipped,
    list_volumes,
    paired_paths,
    read_pairs,
)
from ipv2.ct_io.matching import Match, match_slices
from ipv2.ct_io.patients import log_patients, patient_of, slice_number
from ipv2.ct_io.reading import open_volume, peek, read_volume
from ipv2.ct_io.volume import (
    PADDING_HU,
    Grid,
    ReadOptions,
    Skipped,
    Slice,
    SliceSource,
    Volume,
    hu_to_int16,
)
from ipv2.ct_io.writing import output_files, slice_writer, with_hu, write_volume

__all__ = [
    "PADDING_HU",
    "SUFFIXES",
    "Found",
    "Grid",
    "Item",
    "Match",
    "PairItem",
    "PairedPaths",
    "ReadOptions",
    "Skipped",
    "Slice",
    "SliceSource",
    "Volume",
    "at_dose",
    "count_slices",
    "describe_skipped",
    "folder_files",
    "format_of",
    "hu_to_int16",
    "list_volumes",
    "log_patients",
    "match_slices",
    "open_volume",
    "output_files",
    "paired_paths",
    "patient_of",
    "peek",
    "read_pairs",
    "read_volume",
    "slice_number",
    "slice_writer",
    "stem_of",
    "suffix_of",
    "with_hu",
    "write_volume",
]

"""All DICOM cases."""

from tests.cases.dicom_files import FILES
from tests.cases.dicom_geometry import GEOMETRY
from tests.cases.dicom_headers import HEADERS
from tests.cases.dicom_pixels import PIXELS
from tests.cases.multiframe import MULTIFRAME

DICOM_CASES = (*PIXELS, *GEOMETRY, *HEADERS, *FILES, *MULTIFRAME)

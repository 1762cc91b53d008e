"""DICOM series to NIfTI: split, converted by dcm2niix, checked slice by slice, packed; right, or refused."""

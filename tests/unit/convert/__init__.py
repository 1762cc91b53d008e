"""DICOM to NIfTI, on local folders."""

"""Tables of images: CSV of pixels, lists of files, and Parquet."""

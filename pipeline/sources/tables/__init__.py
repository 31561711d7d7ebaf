"""Tables of images: CSV of pixels, lists of image files, and Parquet."""

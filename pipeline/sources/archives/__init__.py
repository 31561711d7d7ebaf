"""Archives of encoded images: tar and zip of class folders, and WebDataset. Read as streams, never extracted."""

"""Image analysis for rule photo: thumbnails, decorrelated descriptors of them, and the verification of pairs."""

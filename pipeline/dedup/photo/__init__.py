"""What rule photo sees of a picture: a thumbnail, a decorrelated descriptor of it, and a second look at pairs."""

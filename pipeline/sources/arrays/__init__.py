"""Files of arrays: NumPy, MATLAB, IDX and CIFAR. An array of images and one of labels become shards."""

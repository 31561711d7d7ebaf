"""Settings that both sides of `models.py` share."""

# The positive class of models of two classes, by position: digit 5, letter F.
POSITIVE = 5
# The svm's C: given, so that both sides make one fit and no search.
STRENGTH = 2**-5
# By model, what is imported before the clock starts.
IMPORTS = {
    "logistic": "sklearn.linear_model",
    "softmax-sgd": "numpy",
    "sgd-binary": "sklearn.linear_model",
    "never": "numpy",
    "svm-linear": "sklearn.svm",
    "dense": "torch",
    "lenet": "torch",
}

"""arrays -> scores: models that show what a split is worth. One file per model, the choice a dict."""

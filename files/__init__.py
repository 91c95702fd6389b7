"""SVG-LP (Denton and Fergus, ICML 2018) in TensorFlow: configuration, data, model, training, evaluation, plots."""

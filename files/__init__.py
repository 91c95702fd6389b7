"""SVG-LP (Denton and Fergus, ICML 2018) in TensorFlow: configuration, data, model, training, evaluation, plots."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes hide what users look for

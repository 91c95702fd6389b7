"""SVG-LP (Denton and Fergus, ICML 2018) in TensorFlow: configuration, data, model, training, evaluation, plots."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes hide what users look for
# GPU memory as it is needed. TensorFlow reads this when it first looks for devices; after that it can't be changed.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

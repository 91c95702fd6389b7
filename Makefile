# make run | test | test-browser | notebook | executed | bench | check-gpu | figs | lint.  PYTHON=python3.12 chooses an interpreter.
PYTHON ?= python3
BIN := .venv/bin
# For a shorter notebook, say: make run PARAMETERS="-p epochs 1"
PARAMETERS ?=
export PYTHONUNBUFFERED = 1
# TensorFlow's start-up notes would hide the progress; TF_CPP_MIN_LOG_LEVEL=0 make ... shows them.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: run test test-browser notebook executed bench check-gpu figs lint

run: .venv/installed
	mkdir -p results
	TQDM_MININTERVAL=30 $(BIN)/papermill svg.ipynb results/svg.ipynb --log-output --no-progress-bar $(PARAMETERS)
	$(BIN)/python -m files.page results/svg.ipynb results/svg.html
	@rm results/svg.ipynb
	@echo "done: open results/svg.html"

# The notebook with its outputs, as GitHub shows it, from a run of its own; to be committed after a change of its code
executed: .venv/installed
	rm -rf checkpoints/notebook* results/notebook*
	TQDM_MININTERVAL=30 $(BIN)/papermill svg.ipynb results/svg.ipynb --log-output --no-progress-bar
	$(BIN)/python -m files.page results/svg.ipynb svg.ipynb
	@rm results/svg.ipynb

test: .venv/installed lint
	$(BIN)/python -m pytest

# The notebook in JupyterLab in a real browser; skipped where there is no Chromium
test-browser: .venv/installed
	$(BIN)/python -m pip install --disable-pip-version-check --quiet "playwright>=1.50,<2"
	$(BIN)/python -m pytest tests/browser.py --numprocesses=0 -rs

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebook: .venv/installed
	$(BIN)/jupyter lab svg.ipynb

bench: .venv/installed
	$(BIN)/python tests/bench.py

# On a machine with a GPU, a quarter of an hour at most: parity, time and memory -> results/gpu.json
check-gpu: .venv/installed
	$(BIN)/python tests/check_gpu.py

# The figures that come with the project, from what comes with it; those of your own runs: python -m files figures
figs: .venv/installed
	$(BIN)/python -m files figures --results results/shipped --figs figs/shipped

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else \
	"Python %d.%d found; TensorFlow needs 3.10 to 3.13: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@

# The README's commands with their environment as an image: the code, no data, no results.
#   docker build --tag scratchbook .
# docs/cluster.md, section Container, has the other kinds of image and how to run one.
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm
FROM ${BASE}

RUN useradd --create-home --uid 1000 scratchbook && install --directory --owner scratchbook /scratchbook
USER scratchbook
WORKDIR /scratchbook
# `uv run` takes the environment as it is: an image does not change while it runs.
ENV PATH=/scratchbook/.venv/bin:$PATH UV_NO_SYNC=1 UV_NO_CACHE=1
RUN python3 -m venv .venv && pip install --no-cache-dir uv==0.13.8

# Packages before the code, so that an edit of the code leaves this layer, the largest, as it is.
ARG REQUIREMENTS=requirements.txt
COPY requirements*.txt ./
RUN uv pip install --compile-bytecode $(printf -- '--requirements %s ' ${REQUIREMENTS})
COPY --chown=scratchbook . .
RUN uv pip install --no-deps --editable .

CMD ["uv", "run", "snakemake", "--cores", "all", "--resources", "gpu=0"]

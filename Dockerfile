# The installation of the README, in a container. It was written beside the README and its steps are compared by a test,
# but no image has been built of it: there was no Docker where it was written.
#
#   docker build -t fedbcs .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" fedbcs demo
#
# For the small CPU build of PyTorch give the address of its CPU wheels, which pytorch.org names under "Get started":
#
#   docker build --build-arg PIP_EXTRA_INDEX_URL=ADDRESS -t fedbcs .
FROM python:3.11-slim

ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp/matplotlib

WORKDIR /opt/fedbcs
COPY . .
RUN python3 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt .
ENV PATH=/opt/fedbcs/.venv/bin:$PATH

RUN useradd --create-home fedbcs && mkdir /work && chown fedbcs /work
USER fedbcs
WORKDIR /work
ENTRYPOINT ["fedbcs"]
CMD ["--help"]

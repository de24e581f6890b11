# Two images from one recipe: `service` (the default, without torch) and `training`. Build from the
# repository's root:
#   docker build -t hourglass-service .
#   docker build -t hourglass-training --target training .
# pip takes torch's CUDA build; for the smaller CPU build add --build-arg PIP_EXTRA_INDEX_URL=<the
# address of the CPU builds, from the line that PyTorch's own install page shows for pip and CPU>.
# An index of your own is --build-arg PIP_INDEX_URL=..., an authority of your own
#   --secret id=ca,src=ca.pem --build-arg PIP_CERT=/run/secrets/ca
# and a Python of your own, or this one by its digest, --build-arg PYTHON_IMAGE=...@sha256:...
# Models in a bucket, signed models and traces need --build-arg EXTRAS=cloud,signing,traces.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# Where pip looks: nothing of this stage gets into an image, nor addresses that hold a password.
FROM base AS builder
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
ENV PIP_INDEX_URL=${PIP_INDEX_URL} \
    PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL} \
    PIP_CERT=${PIP_CERT} \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

# The project's own wheel, built by the pinned setuptools and by Debian's C compiler, neither of
# which gets into an image.
FROM builder AS wheel
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY deploy/requirements/dev.txt ./
RUN --mount=type=secret,id=ca pip install --constraint dev.txt setuptools
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY training training
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# Without what only makes examples for a framework's documentation, and without training.
FROM builder AS service-environment
ARG EXTRAS
RUN python -m venv --without-pip /opt/hourglass
COPY deploy/requirements/service.txt /tmp/
COPY deploy/requirements/dev.txt /tmp/
RUN --mount=type=secret,id=ca \
    pip --python /opt/hourglass install --requirement /tmp/service.txt
COPY --from=wheel /wheels /wheels
RUN --mount=type=secret,id=ca \
    pip --python /opt/hourglass install --constraint /tmp/dev.txt \
    "$(echo /wheels/*.whl)${EXTRAS:+[$EXTRAS]}" \
 && pip --python /opt/hourglass uninstall --yes faker polyfactory \
 && rm -r /opt/hourglass/bin/hourglass-train \
    /opt/hourglass/lib/python3*/site-packages/hourglass/training \
 && /opt/hourglass/bin/python -c "import hourglass.service.floats.compiled"

FROM builder AS training-environment
ARG EXTRAS
RUN python -m venv --without-pip /opt/hourglass
COPY deploy/requirements/training.txt /tmp/
COPY deploy/requirements/dev.txt /tmp/
RUN --mount=type=secret,id=ca \
    pip --python /opt/hourglass install --requirement /tmp/training.txt
COPY --from=wheel /wheels /wheels
RUN --mount=type=secret,id=ca \
    pip --python /opt/hourglass install --constraint /tmp/dev.txt \
    "$(echo /wheels/*.whl)${EXTRAS:+[$EXTRAS]}"

# What both images have in common at run time: a user of their own, who owns the models folder and
# so a new volume mounted on it. pip and what comes with it stay behind: nothing is installed there.
# onnxruntime reports its use to its maker unless it is told not to.
FROM base AS runtime
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
ENV PATH=/opt/hourglass/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1
RUN pip uninstall --yes --root-user-action ignore setuptools wheel pip \
 && groupadd --gid 10001 hourglass \
 && useradd --uid 10001 --gid 10001 --create-home hourglass \
 && install --directory --owner=10001 --group=10001 /models \
 && install --directory --owner=10001 --group=10001 --mode=0700 /keys

FROM runtime AS training
LABEL org.opencontainers.image.title="hourglass-training" \
      org.opencontainers.image.description="Fits Hourglass models and publishes them into /models"
COPY --from=training-environment /opt/hourglass /opt/hourglass
USER 10001:10001
WORKDIR /home/hourglass
VOLUME ["/models"]
ENTRYPOINT ["hourglass-train"]
CMD ["--help"]

FROM runtime AS service
LABEL org.opencontainers.image.title="hourglass-service" \
      org.opencontainers.image.description="Scores vectors with the models in /models"
COPY --from=service-environment /opt/hourglass /opt/hourglass
# All addresses of the container are listened on, so that a port can be published: without HOURGLASS_KEYS the service starts only
# if HOURGLASS_INSECURE says that nobody else reaches it.
ENV HOURGLASS_MODELS=/models \
    HOURGLASS_HOST=0.0.0.0 \
    HOURGLASS_PORT=8000
USER 10001:10001
WORKDIR /home/hourglass
VOLUME ["/models"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"HOURGLASS_PORT\"]}/health/live', timeout=2)"]
ENTRYPOINT ["hourglass"]
CMD ["serve"]

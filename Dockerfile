# Two images from one recipe: `service` (the default, without torch) and `training`. Build from the repository's root:
#   docker build -t hourglass-service .
#   docker build -t hourglass-training --target training .
# pip takes torch's CUDA build; for the smaller CPU build add --build-arg PIP_EXTRA_INDEX_URL=<the address of the CPU builds,
# from the line that PyTorch's own install page shows for pip and CPU>.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

# The project's own wheel, built by the pinned setuptools and by Debian's C compiler, neither of which gets into an image.
FROM base AS wheel
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY deploy/requirements/dev.txt ./
RUN pip install --constraint dev.txt setuptools
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY training training
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM base AS service-environment
RUN python -m venv /opt/hourglass
COPY deploy/requirements/service.txt /tmp/
RUN /opt/hourglass/bin/pip install --requirement /tmp/service.txt
COPY --from=wheel /wheels /wheels
RUN /opt/hourglass/bin/pip install --no-deps /wheels/*.whl \
 && /opt/hourglass/bin/python -c "import hourglass.service.floats.compiled"

FROM base AS training-environment
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv /opt/hourglass
COPY deploy/requirements/training.txt /tmp/
RUN /opt/hourglass/bin/pip install --requirement /tmp/training.txt
COPY --from=wheel /wheels /wheels
RUN /opt/hourglass/bin/pip install --no-deps /wheels/*.whl

# What both images have in common at run time: a user of their own, who owns the models folder and so a new volume mounted on it.
# onnxruntime reports its use to its maker unless it is told not to.
FROM base AS runtime
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
ENV PATH=/opt/hourglass/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1
RUN groupadd --gid 10001 hourglass \
 && useradd --uid 10001 --gid 10001 --create-home hourglass \
 && install --directory --owner=10001 --group=10001 /models

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

# One image, every subcommand; the entry point is the sidecar, because the platform starts it without command or
# arguments (QP-001). It runs with a read-only root, no capabilities, no HOME and any uid (QP-002 to QP-004).

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY queueproxy queueproxy
RUN ["python", "-m", "pip", "install", "--no-cache-dir", "--no-compile", "--prefix=/install", ".[freezer,telemetry]"]

FROM python:3.11-slim-bookworm
COPY --from=build /install /usr/local
# Bytecode is written here, once: nothing can write it later, and without it each start compiles the standard library
# anew. The files cannot change under us, so their times need no checking either.
RUN ["python", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/usr/local/lib/python3.11"]
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1
WORKDIR /
# Numeric, or the kubelet cannot tell that it is not root.
USER 65532:65532
ENTRYPOINT ["queueproxy", "serve"]

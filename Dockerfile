# Three images: `--target service` has the health service, `--target operator` the operator, and the default has both.
# To build from one known base, name its digest: --build-arg PYTHON_IMAGE=docker.io/library/python:3.13-slim@sha256:…
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim

FROM ${PYTHON_IMAGE} AS tools
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY requirements/ requirements/
COPY image/ image/

FROM tools AS wheel
RUN pip install --require-hashes --requirement requirements/build.txt
COPY pyproject.toml LICENSE README.md ./
COPY crds/ crds/
COPY service/ service/
COPY operator/ operator/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# Dependencies change seldom, so they are installed before our own code.
FROM tools AS service-environment
RUN sh image/install.sh dependencies service
COPY --from=wheel /wheels /wheels
RUN sh image/install.sh wheel

FROM tools AS operator-environment
RUN sh image/install.sh dependencies operator
COPY --from=wheel /wheels /wheels
RUN sh image/install.sh wheel

FROM tools AS environment
RUN sh image/install.sh dependencies service operator
COPY --from=wheel /wheels /wheels
RUN sh image/install.sh wheel

FROM ${PYTHON_IMAGE} AS runtime
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="OpenRouter Guard" \
      org.opencontainers.image.description="A shared circuit breaker for workers that call OpenRouter: health service and operator" \
      org.opencontainers.image.licenses="Apache-2.0 AND MIT AND BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
# The bytecode is in the image already, and the root file system may be read-only. The Kubernetes client cannot be
# imported without a home, which a user with a number alone does not have.
ENV PATH=/opt/openrouter-guard/bin:$PATH HOME=/ PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65534:65534
ENTRYPOINT ["openrouter-guard"]

FROM runtime AS service
COPY --from=service-environment /opt/openrouter-guard /opt/openrouter-guard
EXPOSE 8080
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]

FROM runtime AS operator
COPY --from=operator-environment /opt/openrouter-guard /opt/openrouter-guard
EXPOSE 8081
CMD ["operate"]

FROM runtime
COPY --from=environment /opt/openrouter-guard /opt/openrouter-guard
EXPOSE 8080 8081
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]

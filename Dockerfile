# One image for the health service (`serve`) and the operator (`operate`).
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source

# What changes seldom comes first. The environment has no pip of its own: nothing installs into a running container.
RUN python -m venv --without-pip /opt/openrouter-guard
COPY requirements/ requirements/
RUN pip --python /opt/openrouter-guard/bin/python install --require-hashes \
        --requirement requirements/service.txt --requirement requirements/operator.txt
RUN pip install --require-hashes --requirement requirements/build.txt

COPY pyproject.toml LICENSE README.md ./
COPY crds/ crds/
COPY service/ service/
COPY operator/ operator/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/openrouter-guard/bin/python install --no-deps /wheels/*.whl

FROM python:3.13-slim
COPY --from=build /opt/openrouter-guard /opt/openrouter-guard
ENV PATH=/opt/openrouter-guard/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65534:65534
EXPOSE 8080 8081
ENTRYPOINT ["openrouter-guard"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]

#!/bin/sh
# Fills the environment of an image: `dependencies PART…` by the locks in requirements/, then `wheel` from /wheels.
#
# The environment has no pip of its own, so nothing installs into a running container.
set -eu
environment=/opt/openrouter-guard
site=$(python -c "import sysconfig; print(sysconfig.get_path('purelib', 'venv', {'base': '$environment'}))")

# Without bytecode of pip's, which would stay: it is compared with its source.
install() { pip --python "$environment/bin/python" install --no-compile "$@"; }
# Bytecode that is not compared with its source: nothing changes a file of an image.
compile() { python -m compileall -q --invalidation-mode unchecked-hash "$@"; }

step=$1
shift
case $step in
dependencies)
    python -m venv --without-pip "$environment"
    for part; do
        install --require-hashes --requirement "requirements/$part.txt"
    done
    python image/prune.py "$site"
    compile "$site"
    ;;
wheel)
    install --no-deps /wheels/*.whl
    compile "$site"/openrouter_*
    ;;
*)
    echo "dependencies PART… or wheel, not $step" >&2
    exit 2
    ;;
esac

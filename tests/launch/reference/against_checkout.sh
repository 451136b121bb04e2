#!/bin/sh
# The ctest of against_checkout.py: skipped, with the reason, unless a checkout is named.
set -eu
if [ -z "${DUOFLOW_REFERENCE:-}" ]; then
  echo 'skipped: $DUOFLOW_REFERENCE names no checkout of yiwenchen1999/LVSMExp'
  exit 0
fi
here=$(dirname "$0")
exec "${DUOFLOW_REFERENCE_PYTHON:-$here/../../../.venv/bin/python}" "$here/against_checkout.py" --reference "$DUOFLOW_REFERENCE" \
  ${DUOFLOW_SCENES:+--scenes "$DUOFLOW_SCENES"}

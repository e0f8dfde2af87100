# JR_PARAMS is valid JSON: it can stand in another JSON text as it is.
set -euo pipefail
temporary=$RESULT_DIR/.result.json.$$
printf '{"ok":true,"params":%s}\n' "$JR_PARAMS" > "$temporary"
mv -f -- "$temporary" "$RESULT_DIR/result.json"
printf 'params: %s\n' "$JR_PARAMS"

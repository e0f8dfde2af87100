#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
npm ci --no-audit --no-fund
npx tsc
node --import tsx --test 'server/test/**/*.test.ts'

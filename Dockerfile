# The appliance in one image. It runs without --privileged; no registry but npm's and the base image's own apt archive is needed.
#
#   docker build -t jobrunner .
#   docker run -d --gpus all -p 8080:8080 -v jobrunner:/opt/jobrunner jobrunner
#
# With PyTorch, either as an image of your own (recommended: your versions, and this image stays as it is)
#   FROM jobrunner
#   RUN apt-get update && apt-get install -y --no-install-recommends python3-pip \
#    && pip install --break-system-packages --no-cache-dir torch
# or with --build-arg WITH_TORCH=pip (newest wheels, CUDA included), WITH_TORCH=debian (Debian's, CPU only),
# or on top of an image that has it: --build-arg BASE_IMAGE=<a Debian 12+ or Ubuntu 24.04+ image>. Ubuntu 22.04 is refused: its Slurm is too old.
ARG BASE_IMAGE=debian:trixie-slim

# ---- build: the compiler, npm and the sources stay in here ------------------------------------------------------------------------
FROM ${BASE_IMAGE} AS build
USER root
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates g++ make nodejs npm python3 \
 && rm -rf /var/lib/apt/lists/*
# Node 20 is needed. Where the base's own archive is older (Debian 12, Ubuntu 24.04), nodejs.org's build comes from npm, to /opt/node, and
# npm itself too: Debian's links addons against Debian's libnode.
RUN mkdir -p /opt/node /build \
 && if [ "$(node -p 'Number(process.versions.node.split(".")[0]) >= 20')" != true ]; then \
      case "$(dpkg --print-architecture)" in amd64) arch=x64 ;; arm64) arch=arm64 ;; *) echo "no Node 20 for this architecture" >&2; exit 1 ;; esac; \
      npm install --no-audit --no-fund --prefix /tmp/node "node-linux-$arch@20.20.2" npm@10 \
   && cp -a "/tmp/node/node_modules/node-linux-$arch/bin" "/tmp/node/node_modules/node-linux-$arch/include" /opt/node/ \
   && ln -s /tmp/node/node_modules/npm/bin/npm-cli.js /opt/node/bin/npm; \
    else apt-get update && apt-get install -y --no-install-recommends libnode-dev; fi
ENV PATH=/opt/node/bin:$PATH
WORKDIR /build
COPY package.json package-lock.json ./
# SQLite's addon is compiled here, against the C library of the base.
RUN if [ -d /opt/node/include ]; then export npm_config_nodedir=/opt/node; else export npm_config_nodedir=/usr; fi; \
    npm_config_build_from_source=true npm ci --no-audit --no-fund
COPY . .
RUN node server/build.mjs && rm -rf /opt/node/include /opt/node/bin/npm

# ---- the image ------------------------------------------------------------------------------------------------------------------
FROM ${BASE_IMAGE}
USER root
ARG WITH_TORCH=0
COPY --from=build /opt/node/ /opt/node/
# One layer, so that nothing removed here stays in the image. Debian's munge makes a key when it is installed: one that everybody who
# pulls the image would share. It goes; each appliance makes its own.
RUN export DEBIAN_FRONTEND=noninteractive \
 && apt-get update \
 && slurm=$(apt-cache show --no-all-versions slurmd | sed -n 's/^Version: *//p') \
 && if dpkg --compare-versions "${slurm:-0}" lt 22.05; then \
      echo "BASE_IMAGE: its Slurm is '${slurm:-none}'; 22.05 or newer is needed (Debian 12 or newer, Ubuntu 24.04 or newer)" >&2; exit 1; fi \
 && if [ -x /opt/node/bin/node ]; then ln -s /opt/node/bin/node /usr/local/bin/node; else node=nodejs; fi \
 && apt-get install -y --no-install-recommends \
      slurmctld slurmd slurm-client munge s6 s3fs ${node:-} python3 \
      bzip2 ca-certificates curl gzip jq libnss-wrapper passwd procps util-linux xz-utils zstd \
 && case "$WITH_TORCH" in \
      0) ;; \
      debian) apt-get install -y --no-install-recommends python3-torch ;; \
      pip) apt-get install -y --no-install-recommends python3-pip && pip install --break-system-packages --no-cache-dir torch ;; \
      *) echo "WITH_TORCH must be 0, debian or pip" >&2; exit 1 ;; \
    esac \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log /etc/munge/munge.key \
 # Where people look for Slurm's logs, and where sinfo and squeue look for its configuration when typed in the container.
 && for daemon in slurmctld slurmd; do ln -sf "/opt/jobrunner/slurm/log/$daemon/current" "/var/log/slurm/$daemon.log"; done \
 && for file in slurm gres cgroup; do ln -sf "/opt/jobrunner/slurm/etc/$file.conf" "/etc/slurm/$file.conf"; done
COPY --from=build /build/dist/ /usr/lib/jobrunner/dist/
COPY entrypoint.sh /usr/lib/jobrunner/
# The second name is for on-start scripts of hosts that replace the entrypoint.
RUN ln -s /usr/lib/jobrunner/entrypoint.sh /entrypoint.sh && ln -s /entrypoint.sh /usr/local/bin/jobrunner
# The NVIDIA container runtime puts devices and driver into containers that ask for them by these two.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    JR_ROOT=/opt/jobrunner \
    JR_HOST=0.0.0.0
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 \
  CMD case "$JR_HOST" in 0.0.0.0|::|'') host=127.0.0.1 ;; *:*) host="[$JR_HOST]" ;; *) host=$JR_HOST ;; esac; \
      curl -fsS -o /dev/null --max-time 4 "http://$host:${PORT:-8080}/health"
STOPSIGNAL SIGTERM
WORKDIR /
ENTRYPOINT ["/usr/lib/jobrunner/entrypoint.sh"]
CMD []

#!/usr/bin/env bash
# The packages that tests/slurm needs, on Debian, as root. Their daemons are not started.
set -euo pipefail
command -v slurmctld slurmd slurmdbd mariadbd munged > /dev/null && exit 0
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 # at level 1 no package starts its daemon
apt-get update -q
apt-get install -y -q --no-install-recommends munge slurmctld slurmd slurm-client slurmdbd slurm-wlm-mysql-plugin \
  mariadb-server-core mariadb-client-core

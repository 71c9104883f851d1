#!/usr/bin/env bash
# From a clone to a node: builds a versioned environment, switches to it, installs the service.
#
#     sudo ./install.sh                      everything, for the whole machine
#     sudo ./install.sh -- --coordinator 192.168.1.10:29400 --token-file fleet.token
#     sudo ./install.sh --coordinator        the fleet's coordinator on this machine, too
#     ./install.sh --user                    without root: a service of your own
#     sudo ./install.sh --rollback           back to the version before
#
# An update is the same command. `./install.sh --help` lists the options; docs/INSTALL.md tells more.
#
# What it makes, below /opt/llamaforge (or ~/.local/share/llamaforge):
#     libraries/KEY    torch and the others; KEY is a digest of what decides them, so versions
#                      with the same libraries share them and an update takes seconds
#     versions/NAME    one version of LlamaForge on top of such libraries
#     current          the version in use; the switch is one rename
#     previous         the version before, for --rollback
# An environment can't be renamed (its scripts name their interpreter), so it is built in place and
# counts only once it has its file `complete`; a folder without one is removed by the next run.
set -euo pipefail
umask 022

source_folder=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
torch_choice=auto
python=
user_mode=no
with_service=yes
with_worker=yes
with_coordinator=no
dry_run=no
now=no
purge=no
action=install
prefix=
service_options=()

usage() {
  cat <<'TEXT'
Usage: install.sh [OPTIONS] [-- OPTIONS OF `llamaforge worker install`]

  --torch cpu|cuda|auto   which build of PyTorch; auto takes cuda where nvidia-smi sees a GPU
  --python PATH           interpreter to build on (3.10 to 3.14); by default the first that fits
  --coordinator           the service of the fleet's coordinator, too; an update keeps it
  --no-worker             no worker service, for a coordinator's host that trains nothing
  --no-service            only the program, no service
  --user                  without root: a service of your own that lingers, less hardened
  --prefix DIR            instead of /opt/llamaforge
  --rollback              switch back to the version before
  --now                   restart a busy worker at once, whatever its job loses
  --uninstall             remove the program and its services; state, settings and token stay
  --purge                 with --uninstall: remove these, too
  --dry-run               only say what would be done
  -h, --help              this text
TEXT
}

say() { printf '%s\n' "$*"; }

# fail CODE MESSAGE [NEXT STEP]; 2 is a mistake of the person, 1 is the machine's.
fail() {
  printf 'error: %s\n' "$2" >&2
  [[ -z ${3:-} ]] || printf '  %s\n' "$3" >&2
  exit "$1"
}

# Runs a command that changes something, or only says it.
act() {
  if [[ $dry_run == yes ]]; then
    printf '  would run: %s\n' "${*@Q}"
  else
    "$@"
  fi
}

read_options() {
  while (($#)); do
    case $1 in
      --torch | --python | --prefix)
        (($# > 1)) || fail 2 "$1 needs a value" "see ./install.sh --help"
        case $1 in --torch) torch_choice=$2 ;; --python) python=$2 ;; *) prefix=$2 ;; esac
        shift
        ;;
      --no-service) with_service=no ;;
      --no-worker) with_worker=no ;;
      --coordinator) with_coordinator=yes ;;
      --user) user_mode=yes ;;
      --rollback | --uninstall)
        [[ $action =~ ^(install|${1#--})$ ]] ||
          fail 2 "--rollback and --uninstall contradict each other" "choose one of them"
        action=${1#--}
        ;;
      --purge) purge=yes ;;
      --now) now=yes ;;
      --dry-run) dry_run=yes ;;
      -h | --help) usage && exit 0 ;;
      --) shift && service_options=("$@") && break ;;
      *) fail 2 "no such option: $1" "see ./install.sh --help; options of the service stand after --" ;;
    esac
    shift
  done
  [[ $torch_choice =~ ^(cpu|cuda|auto)$ ]] ||
    fail 2 "--torch is $torch_choice" "choose cpu, cuda or auto"
  [[ $purge == no || $action == uninstall ]] || fail 2 "--purge without --uninstall" \
    "to remove everything: ./install.sh --uninstall --purge"
  if ((${#service_options[@]})); then
    [[ $action != uninstall ]] ||
      fail 2 "options after -- say how the service shall be, and --uninstall removes it" "leave them out"
    local without=
    [[ $with_worker == yes ]] || without=--no-worker
    [[ $with_service == yes ]] || without=--no-service
    [[ -z $without ]] ||
      fail 2 "options after -- say how the worker shall be, and $without installs none" \
        "leave out one or the other"
  fi
  if [[ $with_coordinator == yes ]]; then
    [[ $action == install && $with_service$user_mode == yesno ]] ||
      fail 2 "--coordinator installs a service of the machine" \
        "leave out --user, --no-service, --rollback or --uninstall"
  fi
}

# An update without options keeps what there is: on a coordinator's host no worker appears by itself.
manifests=/var/lib/llamaforge-install
remember_services() {
  [[ $user_mode == no && $with_service == yes ]] || return 0
  [[ ! -e $manifests/coordinator.json ]] || with_coordinator=yes
  if [[ -e $manifests/coordinator.json && ! -e $manifests/manifest.json ]]; then
    ((${#service_options[@]})) || with_worker=no
  fi
}

# Where things go: $prefix for environments, $command_folder for the link to the command.
choose_places() {
  if [[ $user_mode == yes ]]; then
    [[ $EUID -ne 0 ]] || fail 2 "--user is for people without root" "leave it out: ./install.sh"
    prefix=${prefix:-${XDG_DATA_HOME:-$HOME/.local/share}/llamaforge}
    command_folder=$HOME/.local/bin
  else
    [[ $EUID -eq 0 || $dry_run == yes ]] || fail 2 "installing for the machine needs root" \
      "run: sudo $0 …   or, without root, only for you: $0 --user"
    prefix=${prefix:-/opt/llamaforge}
    command_folder=/usr/local/bin
  fi
  [[ $prefix == /* ]] || fail 2 "--prefix is $prefix" "give a path that begins with /"
  [[ $user_mode == yes || $with_service == no || ! $prefix/ =~ ^/(home|root)/ ]] || fail 2 \
    "--prefix is $prefix, and the service sees no home folder" \
    "choose a folder elsewhere, or install with --user, or only the program with --no-service"
}

# ── the interpreter ───────────────────────────────────────────────────────────────────────────

python_fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }

# The service's user can't read root's or a person's home.
python_is_reachable() {
  [[ $user_mode == yes ]] ||
    "$1" -c 'import sys; sys.exit(sys.base_prefix.startswith(("/root", "/home")))'
}

choose_python() {
  local candidate
  if [[ -n $python ]]; then
    command -v "$python" >/dev/null || fail 2 "--python $python does not exist" \
      "name another one, or leave it out: the first that fits is taken"
    python=$(command -v "$python")
    python_fits "$python" || fail 2 "$python is $("$python" --version 2>&1 | head -n 1)" \
      "LlamaForge runs on Python 3.10 to 3.14"
    python_is_reachable "$python" || fail 2 "$python stands in a home folder" \
      "the service's user can't read it: choose one under /usr or /opt, or install with --user"
  else
    for candidate in /usr/bin/python3 python3 /usr/bin/python3.{13,12,11,10,14} python3.{13,12,11,10,14}; do
      candidate=$(command -v "$candidate") || continue
      if python_fits "$candidate" && python_is_reachable "$candidate"; then
        python=$candidate
        break
      fi
    done
    [[ -n $python ]] || fail 1 "no Python 3.10 to 3.14 was found" \
      "$(how_to_get "python3 python3-venv" python3.12)   or name one with --python"
  fi
  "$python" -c 'import venv, ensurepip' 2>/dev/null || fail 1 \
    "$python can't make virtual environments: its venv module is missing" \
    "$(how_to_get "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" python3-pip)"
}

note_on_python() {
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    say "note: on Python 3.10 some libraries are older than on 3.11 to 3.14; where nodes differ, a" \
      "job may promise less. --python chooses another one."
}

# how_to_get DEBIAN-PACKAGES FEDORA-PACKAGES: the line that installs them here.
how_to_get() {
  local family=
  # shellcheck disable=SC1091
  [[ ! -r /etc/os-release ]] || family=$(. /etc/os-release && echo "${ID:-} ${ID_LIKE:-}")
  case $family in
    *debian* | *ubuntu*) echo "run: sudo apt-get install $1" ;;
    *fedora* | *rhel*) echo "run: sudo dnf install $2" ;;
    *) echo "install it with your distribution's package manager" ;;
  esac
}

# ── torch ─────────────────────────────────────────────────────────────────────────────────────

choose_torch() {
  local gpus=
  if [[ $torch_choice != cpu ]]; then
    gpus=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null) || gpus=
  fi
  if [[ $torch_choice == auto ]]; then
    if [[ -n $gpus ]]; then torch_choice=cuda; else torch_choice=cpu; fi
  elif [[ $torch_choice == cuda && -z $gpus ]]; then
    fail 1 "--torch cuda, but $(why_no_gpu)" \
      "install NVIDIA's driver first, or choose --torch cpu"
  fi
  torch_pin=$(sed -n 's/^torch==\([^; ]*\).*/\1/p' "$source_folder/constraints.txt")
  [[ -n $torch_pin ]] || fail 1 "constraints.txt does not pin torch" "check out a complete source tree"
  if [[ $torch_choice == cuda ]]; then check_driver "$gpus"; fi
}

why_no_gpu() {
  if command -v nvidia-smi >/dev/null; then
    echo "nvidia-smi sees no GPU: $(nvidia-smi 2>&1 | head -n 1 || true)"
  else
    echo "there is no nvidia-smi on this machine"
  fi
}

# The CUDA that this torch is built with needs such a driver.
oldest_driver=580
check_driver() {
  local driver=${1##*, }
  driver=${driver%%.*}
  [[ ! $driver =~ ^[0-9]+$ || $driver -ge $oldest_driver ]] || fail 1 \
    "the NVIDIA driver is ${1##*, }, but torch $torch_pin needs $oldest_driver or newer" \
    "update the driver, or choose --torch cpu"
}

# check_room NEEDED-MB FOLDER: refuses before anything is downloaded.
check_room() {
  local folder=$2 free
  while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
  free=$(df --output=avail -BM "$folder" | tail -n 1 | tr -dc 0-9)
  ((free >= $1)) || fail 1 "$2 has $free MB free, and $1 MB are needed for torch ($torch_choice)" \
    "make room, or choose another place with --prefix (or TMPDIR, for what pip unpacks)"
}

# ── environments ──────────────────────────────────────────────────────────────────────────────

digest_of() { sha256sum | cut -c1-12; }

# What decides which libraries are installed: pins, ranges, interpreter, build of torch.
libraries_key() {
  {
    cat "$source_folder/constraints.txt"
    requirements
    echo "$torch_choice"
    readlink -f "$python"
    "$python" --version
    uname -m
  } | digest_of
}

# What decides what a version does: every file that goes into it.
sources_digest() {
  cd "$source_folder"
  find src packaging examples/models distributed_train.py pyproject.toml README.md \
    -type f ! -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | digest_of
}

# The dependencies in pyproject.toml, and what builds the wheel, one per line.
requirements() {
  "$python" - "$source_folder/pyproject.toml" <<'CODE'
import re, sys

text = open(sys.argv[1], encoding="utf-8").read()
try:
    import tomllib
except ImportError:  # Python 3.10: the two lists are read as they are laid out
    lists = [re.search(rf"^{key} = \[(.*?)\]$", text, re.M | re.S)[1] for key in ("dependencies", "requires")]
    words = [word for part in lists for word in re.findall(r'"([^"]+)"', part)]
else:
    project = tomllib.loads(text)
    words = project["project"]["dependencies"] + project["build-system"]["requires"]
print("\n".join(words))
CODE
}

version_of_source() { sed -n 's/^version = "\(.*\)"$/\1/p' "$source_folder/pyproject.toml" | head -n 1; }

# begin FOLDER / finish FOLDER: around building one; what was interrupted is never taken for whole.
begin() {
  rm -rf "$1"
  mkdir -p "$1"
  unfinished=$1
}
finish() {
  touch "$1/complete"
  sync -f "$1" 2>/dev/null || sync
  unfinished=
}
unfinished=
trap '[[ -z $unfinished ]] || rm -rf "$unfinished"' EXIT
trap 'interrupted 130' INT
trap 'interrupted 143' TERM HUP
interrupted() {
  printf 'interrupted: what was being built is removed; run this again to go on\n' >&2
  exit "$1"
}

pip_of() { "$1/bin/python3" -m pip --disable-pip-version-check --no-input "${@:2}"; }

install_torch() {
  local folder=$1 pins=(-c "$source_folder/constraints.txt")
  if [[ $torch_choice == cuda ]]; then
    pip_of "$folder" install --quiet "${pins[@]}" "torch==$torch_pin"
  elif [[ $(uname -m) != x86_64 ]]; then
    pip_of "$folder" install --quiet "${pins[@]}" "torch==$torch_pin"  # there, this is the CPU's
  elif ! pip_of "$folder" install --quiet "${pins[@]}" "torch==$torch_pin+cpu" 2>/dev/null; then
    say "  (no CPU build in the index that pip is set to; taking PyTorch's own)"
    pip_of "$folder" install --quiet "${pins[@]}" "torch==$torch_pin+cpu" \
      --extra-index-url https://download.pytorch.org/whl/cpu
  fi
}

build_libraries() {
  local folder=$prefix/libraries/$libraries
  if [[ -e $folder/complete ]]; then
    say "Libraries: already there ($libraries)"
    return
  fi
  local megabytes=2500
  [[ $torch_choice == cpu ]] || megabytes=10000
  check_room "$megabytes" "$prefix"
  check_room $((megabytes / 2)) "${TMPDIR:-/tmp}"
  say "Libraries: torch $torch_pin ($torch_choice) on $("$python" --version), some minutes …"
  if [[ $dry_run == yes ]]; then
    say "  would build $folder"
    return
  fi
  begin "$folder"
  "$python" -m venv "$folder"
  install_torch "$folder" || fail 1 "torch could not be installed (pip's message is above)" \
    "check the network and the index that pip is set to (PIP_INDEX_URL, pip.conf), then run this again"
  requirements >"$folder/requirements.txt"
  pip_of "$folder" install --quiet -c "$source_folder/constraints.txt" -r "$folder/requirements.txt" ||
    fail 1 "the libraries could not be installed (pip's message is above)" "run this again"
  "$folder/bin/python3" -c 'import torch, transformers, peft, aiohttp, cryptography' ||
    fail 1 "the libraries were installed but can't be imported" "run this again, or try --python"
  finish "$folder"
}

build_version() {
  local folder=$prefix/versions/$version
  if [[ -e $folder/complete ]]; then
    say "Version: already there ($version)"
    return
  fi
  say "Version: $version"
  if [[ $dry_run == yes ]]; then
    say "  would build $folder"
    return
  fi
  begin "$folder"
  "$python" -m venv --without-pip "$folder"
  ln -s "../../libraries/$libraries" "$folder/libraries"
  local packages
  packages=$("$folder/bin/python3" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # addsitedir and not just a path, so that the libraries' own .pth files count, too.
  printf 'import site; site.addsitedir("%s")\n' "$prefix/libraries/$libraries/${packages#"$folder/"}" \
    >"$packages/llamaforge_libraries.pth"
  add_program "$folder" || fail 1 "LlamaForge could not be installed (pip's message is above)" \
    "check that $source_folder is a complete source tree"
  "$folder/bin/llamaforge" --version >/dev/null ||
    fail 1 "the new version does not start" "nothing was switched; run this again"
  finish "$folder"
}

# Where SELinux is on, services may only run files that are labelled as programs.
label() {
  if command -v selinuxenabled >/dev/null && selinuxenabled; then
    act restorecon -R "$prefix" || say "note: restorecon failed; see llamaforge doctor"
  fi
}

# The wheel is made and unpacked with the libraries' pip; scripts must start this version's python.
add_program() {
  local folder=$1 wheels=$1/wheels
  pip_of "$folder/libraries" wheel --quiet --no-deps --no-build-isolation \
    --wheel-dir "$wheels" "$source_folder"
  pip_of "$folder/libraries" install --quiet --no-deps --no-index --no-warn-script-location \
    --ignore-installed --prefix "$folder" "$wheels"/*.whl
  rm -r "$wheels"
  sed -i "1s|.*|#!$folder/bin/python3|" "$folder/bin/llamaforge"
  printf '#!/bin/sh\nexec "%s" -m torch.distributed.run "$@"\n' "$folder/bin/python3" \
    >"$folder/bin/torchrun"
  chmod 755 "$folder/bin/torchrun"
}

# ── switching ─────────────────────────────────────────────────────────────────────────────────

# point LINK TARGET: in one rename, so that there is never a moment without it.
point() {
  act ln -sfn "$2" "$1.new"
  act mv -fT "$1.new" "$1"
}

switch_to() {
  local now_current
  now_current=$(readlink "$prefix/current" 2>/dev/null || true)
  [[ $now_current != "versions/$1" ]] || return 0
  [[ -z $now_current ]] || point "$prefix/previous" "$now_current"
  point "$prefix/current" "versions/$1"
}

link_command() {
  local folder
  act mkdir -p "$command_folder"
  for folder in "$command_folder" $(other_sudo_folder); do
    if [[ -e $folder/llamaforge && ! -L $folder/llamaforge ]]; then
      say "note: $folder/llamaforge is not ours and stays; ours is $prefix/current/bin/llamaforge"
    else
      point "$folder/llamaforge" "$prefix/current/bin/llamaforge"
    fi
  done
}

# Some distributions' sudo does not look into /usr/local/bin.
other_sudo_folder() {
  [[ $user_mode == no ]] || return 0
  local paths
  paths=$(grep -hrs '^[[:space:]]*Defaults.*secure_path' /etc/sudoers /etc/sudoers.d | tail -n 1 || true)
  [[ -z $paths || $paths == */usr/local/bin* ]] || echo /usr/bin
}

# The versions that processes run: a worker that waits for its job to end still needs its own.
versions_at_work() {
  local line
  # A process that ends meanwhile is no reason to fail.
  { cat /proc/[0-9]*/cmdline 2>/dev/null || true; } | tr '\0' '\n' | while read -r line; do
    [[ $line != "$prefix"/versions/* ]] || echo "$prefix/versions/$(cut -d/ -f1 <<<"${line#"$prefix"/versions/}")"
  done | sort -u
}

# Removes what neither `current` nor `previous` nor a process needs, and what an interrupted run left.
clean() {
  local folder version_folder keep
  keep=$(for link in current previous; do readlink -f "$prefix/$link" || true; done; versions_at_work)
  for folder in "$prefix"/versions/*/; do
    folder=${folder%/}
    [[ ! -d $folder ]] || grep -qxF "$(readlink -f "$folder")" <<<"$keep" || act rm -rf "$folder"
  done
  keep=$(for version_folder in $keep; do readlink -f "$version_folder/libraries" || true; done)
  for folder in "$prefix"/libraries/*/; do
    folder=${folder%/}
    [[ ! -d $folder ]] || grep -qxF "$(readlink -f "$folder")" <<<"$keep" || act rm -rf "$folder"
  done
}

# ── the service ───────────────────────────────────────────────────────────────────────────────

# One flag per line, for mapfile.
service_flags() {
  if [[ $user_mode == yes ]]; then echo --lingering; fi
}

install_service() {
  local flags=()
  [[ $with_service == yes ]] || return 0
  if ! command -v systemctl >/dev/null; then
    say "note: this machine has no systemd, so there is no service; by hand: llamaforge worker run"
    return 0
  fi
  mapfile -t flags < <(service_flags)
  [[ $now == no ]] || flags+=(--now)
  # The coordinator first: a worker of the same machine finds it there.
  [[ $with_coordinator == no ]] || install_one coordinator "${flags[@]}"
  [[ $with_worker == no ]] || install_one worker "${flags[@]}" "${service_options[@]}"
}

# install_one SERVICE OPTIONS…
install_one() {
  if [[ $dry_run == yes ]]; then
    say "  would run: llamaforge $1 install ${*:2}"
    return 0
  fi
  "$prefix/current/bin/llamaforge" "$1" install "${@:2}" ||
    fail $? "the program is installed, the service is not as it should be (see above)" \
      "correct it and run this again; to the version before: $0 --rollback"
}

# A mistake in them is found before anything is switched. What reads the token from standard input
# can't be asked twice.
check_service_options() {
  [[ $with_service$with_worker == yesyes && $dry_run == no ]] && command -v systemctl >/dev/null || return 0
  [[ " ${service_options[*]} " != *" - "* && " ${service_options[*]} " != *"=- "* ]] || return 0
  local flags=()
  mapfile -t flags < <(service_flags)
  "$prefix/versions/$version/bin/llamaforge" worker install --dry-run \
    "${flags[@]}" "${service_options[@]}" >/dev/null ||
    fail $? "the program is built, and nothing was switched" "correct the options and run this again"
}

# ── what can be asked for ─────────────────────────────────────────────────────────────────────

lock() {
  [[ $dry_run == no ]] || return 0
  mkdir -p "$prefix"
  # Closed to others: who can open it can hold it, and nobody could install any more.
  (umask 077 && : >>"$prefix/.lock") && chmod 600 "$prefix/.lock"
  exec 9>"$prefix/.lock"
  flock -n 9 || fail 1 "another install.sh is at work in $prefix" "wait for it, then run this again"
}

done_with() {
  if [[ $dry_run == yes ]]; then say "Nothing was changed: this was a dry run."; else say "Done: $1"; fi
}

do_install() {
  choose_python
  note_on_python
  choose_torch
  lock
  libraries=$torch_choice-$torch_pin-$(libraries_key)
  version=$(version_of_source)-$(sources_digest)-${libraries##*-}
  version=${version:0:60}
  build_libraries
  build_version
  label
  check_service_options
  switch_to "$version"
  link_command
  install_service
  clean
  done_with "$prefix/current is $version."
  [[ $user_mode == no || :$PATH: == *:$command_folder:* ]] ||
    say "note: $command_folder is not in your PATH; log in again, or call $command_folder/llamaforge"
}

do_rollback() {
  local back
  back=$(readlink "$prefix/previous" 2>/dev/null) ||
    fail 2 "there is no version before this one in $prefix" "an update keeps one"
  [[ -e $prefix/$back/complete ]] || fail 1 "$prefix/$back is not complete" "run ./install.sh again"
  lock
  switch_to "${back#versions/}"
  install_service
  done_with "$prefix/current is ${back#versions/}."
}

# State and settings that an earlier removal has left; the program that knows them is gone.
purge_what_is_left() {
  if [[ $user_mode == yes ]]; then
    act rm -rf "${XDG_CONFIG_HOME:-$HOME/.config}/llamaforge" \
      "${XDG_STATE_HOME:-$HOME/.local/state}/llamaforge" "${XDG_CACHE_HOME:-$HOME/.cache}/llamaforge"
    return
  fi
  [[ ! -e $manifests/manifest.json && ! -e $manifests/coordinator.json ]] ||
    fail 1 "a service is installed, by a program that is not in $prefix" \
      "name its place with --prefix, or: sudo llamaforge worker install --uninstall --purge"
  act rm -rf /etc/llamaforge /var/{lib,cache,log}/llamaforge /run/llamaforge
  act rm -rf /var/{lib,cache}/llamaforge-coordinator /run/llamaforge-coordinator
}

do_uninstall() {
  local flags=() folder
  [[ ! -d $prefix ]] || lock
  mapfile -t flags < <(service_flags)
  [[ $purge == no ]] || flags+=(--purge)
  if [[ -x $prefix/current/bin/llamaforge ]]; then
    act "$prefix/current/bin/llamaforge" worker install --uninstall "${flags[@]}"
    [[ $user_mode == yes || ! -e $manifests/coordinator.json ]] ||
      act "$prefix/current/bin/llamaforge" coordinator install --uninstall "${flags[@]}"
  elif [[ ! -d $prefix/versions ]]; then
    say "note: there is no LlamaForge in $prefix"
    [[ $purge == no ]] || purge_what_is_left
  fi
  for folder in "$command_folder" /usr/bin; do
    if [[ $(readlink "$folder/llamaforge" || true) == "$prefix/current/bin/llamaforge" ]]; then
      act rm "$folder/llamaforge"
    fi
  done
  # Only what this script made: --prefix may name a folder that holds other things, too.
  act rm -rf "$prefix"/{libraries,versions,current,previous,current.new,previous.new,.lock}
  [[ ! -d $prefix ]] || act rmdir --ignore-fail-on-non-empty "$prefix"
  done_with "LlamaForge is removed."
}

read_options "$@"
choose_places
remember_services
"do_$action"

#!/bin/sh
# A secret's first minute: defined, set, read back, and looked for on the disk, where it isn't.
#
# Works in a fresh temporary directory and removes it in the end: keystore, key and all. Builds strongroom first unless
# STRONGROOM names the program. Each command is printed before it runs, as you would type it.
set -eu

cd "$(dirname "$0")/.."
if [ -z "${STRONGROOM:-}" ]; then
    echo "Building strongroom; the first time takes a minute or two …"
    cargo build --quiet --release
    STRONGROOM=$(cargo metadata --no-deps --format-version 1 |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/strongroom
fi
program=$(cd "$(dirname "$STRONGROOM")" && pwd)/$(basename "$STRONGROOM")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work"
strongroom() { "$program" "$@"; }
bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi
say() { printf '\n# %s\n' "$*"; }
run() {
    printf '%s$ %s%s\n' "$bold" "$1" "$plain"
    eval "$1" 2>&1
}

say "A keystore is a directory; its key is a file elsewhere. Both are made on first use."
run "export VIRSH_DEFAULT_CONNECT_URI='secret:///embed?root=$work/keystore'"
run "export STRONGROOM_KEY_FILE='$work/elsewhere/host.key'"

say "A secret is defined by the document libvirt uses."
cat > disk.xml <<'XML'
<secret ephemeral='no' private='no'>
  <uuid>6f2f7c9e-5a3b-4a0e-9c57-3d1b9a1f0d42</uuid>
  <description>passphrase of the database's disk</description>
  <usage type='volume'>
    <volume>/srv/images/db.qcow2</volume>
  </usage>
</secret>
XML
run "cat disk.xml"
run "strongroom secret-define disk.xml"

say "Its value comes from standard input, so it is in no argument list. (Typed here for show; use a program's pipe or --interactive.)"
run "printf 'correct horse battery staple' | strongroom secret-set-value 6f2f7c9e-5a3b-4a0e-9c57-3d1b9a1f0d42"
run "strongroom secret-list"

say "It comes back, in base64 as from virsh, or as it is."
run "strongroom -q secret-get-value 6f2f7c9e-5a3b-4a0e-9c57-3d1b9a1f0d42; echo"
run "strongroom -q secret-get-value 6f2f7c9e-5a3b-4a0e-9c57-3d1b9a1f0d42 --plain; echo"

say "On disk there is the definition, for scripts that look there, and the value only sealed."
run "ls -l keystore/etc/secrets"
run "grep -rlF 'passphrase of the database' keystore"
run "grep -rF -e 'correct horse' -e 'Y29ycmVjdCBob3JzZ' keystore || echo 'in no file, neither as it is nor in base64'"
run "tail -c 384 keystore/etc/secrets/secrets.log | od -A n -t x1z -N 48"

say "How it stands, and what its key is worth."
run "strongroom status"

say "Without the key nothing opens, and nothing is lost: it is locked, and says what would help."
run "mv elsewhere/host.key elsewhere/away.key"
run "strongroom secret-get-value 6f2f7c9e-5a3b-4a0e-9c57-3d1b9a1f0d42 || echo \"it ended with status \$?\""
run "mv elsewhere/away.key elsewhere/host.key"
run "strongroom -q secret-get-value 6f2f7c9e-5a3b-4a0e-9c57-3d1b9a1f0d42 --plain; echo"

say "That was it. Everything lay in $work, which is removed now."

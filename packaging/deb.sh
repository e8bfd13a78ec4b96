#!/usr/bin/env bash
# Makes the Debian package of this checkout for this machine's architecture, with
# dpkg-deb alone. The same checkout and the same Go make the same bytes.
#   deb.sh BIN OUT    BIN: the built programs; OUT: directory of the package
# VERSION (of the project) and SOURCE_DATE_EPOCH (seconds) may be given; else git says.
set -euo pipefail
bin=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
cd "$(dirname "$0")/.."
export LC_ALL=C TZ=UTC
umask 022

: "${VERSION:=$(git describe --tags --always --dirty 2>/dev/null || echo unknown)}"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
export SOURCE_DATE_EPOCH

# v1.2.3 → 1.2.3; v1.2.3-5-gabc → 1.2.3+5.gabc, later than 1.2.3; v1.3.0-rc.1 →
# 1.3.0~rc.1, earlier than 1.3.0; without a tag the commit's date makes the order.
debian_version() {
  local v=${1#v} tail=
  case "$v" in *-dirty) tail=+dirty v=${v%-dirty} ;; esac
  if [[ $v =~ ^(.*)-([0-9]+)-(g[0-9a-f]+)$ ]]; then
    v=${BASH_REMATCH[1]} tail=+${BASH_REMATCH[2]}.${BASH_REMATCH[3]}$tail
  elif ! [[ $v =~ ^[0-9]+\.[0-9] ]]; then
    v=0.0.0~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).${v//[^A-Za-z0-9]/.}
  fi
  echo "${v/-/\~}$tail" | tr -- '-' '.'
}
version=$(debian_version "$VERSION")
arch=$(dpkg --print-architecture)
package=$out/stellar_${version}_$arch.deb

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
doc=usr/share/doc/stellar
file() { install -D -m "$1" "$2" "$root/$3"; } # mode, from, to
gz() { gzip -9n >"$root/$1" && chmod 644 "$root/$1"; }

file 755 "$bin/stellar" usr/bin/stellar
file 755 "$bin/stellar-runc" usr/bin/stellar-runc
file 755 "$bin/stellar-cni" usr/lib/stellar/stellar-cni
file 755 "$bin/stellar-cni-ipam" usr/lib/stellar/stellar-cni-ipam

file 644 packaging/systemd/stellar.service usr/lib/systemd/system/stellar.service
file 644 packaging/systemd/60-stellar.conf usr/lib/sysctl.d/60-stellar.conf
file 644 packaging/systemd/10-stellar.network usr/lib/systemd/network/10-stellar.network
file 644 packaging/systemd/10-stellar.link usr/lib/systemd/network/10-stellar.link
file 644 packaging/systemd/10-stellar-networkd.conf usr/lib/systemd/networkd.conf.d/10-stellar.conf
file 644 packaging/systemd/10-stellar-nm.conf usr/lib/NetworkManager/conf.d/10-stellar.conf
file 644 packaging/systemd/stellar.tmpfiles usr/lib/tmpfiles.d/stellar.conf
file 644 packaging/systemd/stellar.sysusers usr/lib/sysusers.d/stellar.conf
file 644 packaging/systemd/rt_protos.conf etc/iproute2/rt_protos.d/stellar.conf
file 644 packaging/grafana/stellar.json usr/share/stellar/grafana/stellar.json
file 644 packaging/prometheus/stellar.rules.yaml usr/share/stellar/prometheus/stellar.rules.yaml
"$bin/stellar" agent config default >"$root/config.toml"
file 644 "$root/config.toml" etc/stellar/config.toml
file 644 "$root/config.toml" $doc/examples/config.toml
rm "$root/config.toml"

mkdir -p "$root"/usr/share/{bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d,man/man1,man/man5,lintian/overrides}
"$bin/stellar" completion bash >"$root/usr/share/bash-completion/completions/stellar"
"$bin/stellar" completion zsh >"$root/usr/share/zsh/vendor-completions/_stellar"
"$bin/stellar" completion fish >"$root/usr/share/fish/vendor_completions.d/stellar.fish"

pages=$(mktemp -d)
trap 'rm -rf "$root" "$pages"' EXIT
"$bin/stellar" man "$pages"
cp packaging/deb/stellar-runc.1 "$pages"
for page in "$pages"/*; do
  gz "usr/share/man/man${page##*.}/${page##*/}.gz" <"$page"
done

file 644 packaging/deb/copyright $doc/copyright
file 644 README.md $doc/README.md
find docs -name '*.md' -printf '%P\n' | while read -r f; do file 644 "docs/$f" "$doc/$f"; done
gz $doc/changelog.gz <<END
stellar ($version) unstable; urgency=medium

  * Version $VERSION of Stellar.

 -- The Stellar authors <maintainers@stellar.io>  $(date -R -u -d "@$SOURCE_DATE_EPOCH")
END
file 644 packaging/deb/lintian-overrides usr/share/lintian/overrides/stellar

mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do install -m 755 "packaging/deb/$script" "$root/DEBIAN/$script"; done
(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
(cd "$root" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
cat >"$root/DEBIAN/control" <<END
Package: stellar
Version: $version
Architecture: $arch
Maintainer: The Stellar authors <maintainers@stellar.io>
Installed-Size: $(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f1)
Depends: passwd
Recommends: containerd (>= 1.6) | containerd.io, runc | crun | containerd.io, iproute2, nftables
Suggests: iptables
Section: net
Priority: optional
Homepage: https://stellar.io/stellar
Description: networks for containerd's containers
 Every container with the label stellar.io/network, whoever created it, gets an
 interface, an address from a Raft-replicated plan and a way out, over plain
 kernel routes. One agent per node; machines join with a token. No tunnels, no
 server apart.
END
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
find "$root" -type d -exec chmod 755 {} +
# One thread: the bytes of xz depend on their number. Level 1: half a minute less.
dpkg-deb --root-owner-group -Zxz -z1 --threads-max=1 --build "$root" "$package" >/dev/null
echo "$package"

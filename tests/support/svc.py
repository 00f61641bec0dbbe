"""A small service in packages, in two versions, with one of everything that is hard to install."""

from __future__ import annotations

from tests.support.makepkg import Recipe

MARK = "/var/tmp/picloud-image-foreign-code-ran"
"""What a scriptlet or a hook leaves that is run on this computer."""

_SCRIPTLET = f"""\
_mark() {{
    touch {MARK}
    echo "$*" >>"${{PICLOUD_ROOT-/nowhere}}/var/log/svc"
}}
post_install() {{
    _mark installed "$@"
}}
pre_upgrade() {{
    _mark before "$@"
}}
post_upgrade() {{
    _mark after "$@"
}}
post_remove() {{
    _mark removed "$@"
}}
"""
_FILES = """\
install -Dm755 /dev/null usr/bin/svc
install -m4755 /dev/null usr/bin/svc-suid
install -d usr/lib/svc usr/lib/sysusers.d usr/lib/tmpfiles.d usr/share/libalpm/hooks etc/svc
echo "$pkgver" >usr/lib/svc/data
ln -s data usr/lib/svc/link
ln usr/lib/svc/data usr/lib/svc/second-name
echo "u svc - svc" >usr/lib/sysusers.d/svc.conf
echo "d /run/svc" >usr/lib/tmpfiles.d/svc.conf
install -d -o 123 -g 124 -m 2750 var/lib/svc
for name in same touched left gone; do echo "$name=1" >etc/svc/$name; done
"""
_HOOK = f"""\
cat >usr/share/libalpm/hooks/svc-mark.hook <<X
[Trigger]
Type = Path
Operation = Install
Operation = Upgrade
Target = usr/lib/svc/*
Target = !usr/lib/svc/link
[Action]
Description = Leaving a mark
When = PostTransaction
Exec = /bin/sh -c 'touch {MARK}; cat >>"\\$PICLOUD_ROOT/var/log/svc"'
NeedsTargets
X
"""
_DEPENDS = "depends=('libsvc.so=1-32')"
_BACKUP = "etc/svc/same etc/svc/touched etc/svc/left"

LIBSVC = Recipe(
    "libsvc",
    "1.0",
    "install -d usr/lib; echo lib >usr/lib/libsvc.so.1.0; ln -s libsvc.so.1.0 usr/lib/libsvc.so.1",
    "provides=('libsvc.so=1-32')\ngroups=(base things)\nurl=https://svc.invalid/?a=b",
)
SVC_1 = Recipe(
    "svc",
    "1.0",
    f"{_FILES}{_HOOK}install -d usr/share/svc/old; "
    "echo x >usr/share/svc/old/file; echo old >etc/svc/old",
    f"backup=({_BACKUP} etc/svc/old)\n{_DEPENDS}",
    _SCRIPTLET,
)
SVC_2 = Recipe(
    "svc",
    "2.0",
    f"{_FILES}{_HOOK}echo touched=2 >etc/svc/touched; echo left=2 >etc/svc/left\n"
    "install -d usr/share/svc/new; rm etc/svc/gone",
    f"backup=({_BACKUP})\n{_DEPENDS}\noptdepends=('docker: in a box')\nconflicts=(svc-old)",
    _SCRIPTLET,
)

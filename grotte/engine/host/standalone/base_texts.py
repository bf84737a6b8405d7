"""The words of template ``base``: its accounts, profiles and directories."""

from __future__ import annotations

USER_ID = 1000

# Of the host's /etc only what programs under /usr need and what says nothing about the host or its people.
ETC = (
    "alternatives", "ca-certificates.conf", "ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "pki/tls/certs",
    "pki/tls/cert.pem", "pki/tls/openssl.cnf", "pki/ca-trust/extracted", "crypto-policies", "ld.so.cache",
    "ld.so.conf", "ld.so.conf.d", "ld-musl-x86_64.path", "ld-musl-aarch64.path", "os-release",
    "debian_version", "alpine-release", "redhat-release", "lsb-release", "mime.types",
    "protocols", "services", "rpc", "magic", "inputrc", "bash.bashrc", "bashrc", "gai.conf", "host.conf",
    "locale.alias", "locale.conf", "terminfo", "perl", "fonts", "python3", "python3.11", "python3.12",
    "python3.13", "python3.14", "vim", "nanorc", "java-17-openjdk", "java-21-openjdk", "debconf.conf", "adduser.conf",
    "login.defs", "pam.d", "ca-certificates",
)  # fmt: skip

# The users and groups that Debian has from the start: packages count on them.
SYSTEM_USERS = {
    "daemon": (1, 1, "/usr/sbin"), "bin": (2, 2, "/bin"), "sys": (3, 3, "/dev"), "games": (5, 60, "/usr/games"),
    "man": (6, 12, "/var/cache/man"), "lp": (7, 7, "/var/spool/lpd"), "mail": (8, 8, "/var/mail"),
    "news": (9, 9, "/var/spool/news"), "uucp": (10, 10, "/var/spool/uucp"), "proxy": (13, 13, "/bin"),
    "www-data": (33, 33, "/var/www"), "backup": (34, 34, "/var/backups"), "list": (38, 38, "/var/list"),
    "irc": (39, 39, "/run/ircd"), "_apt": (42, 65534, "/nonexistent"), "nobody": (65534, 65534, "/nonexistent"),
}  # fmt: skip
SYSTEM_GROUPS = {
    "root": 0, "daemon": 1, "bin": 2, "sys": 3, "adm": 4, "tty": 5, "disk": 6, "lp": 7, "mail": 8, "news": 9,
    "uucp": 10, "man": 12, "proxy": 13, "kmem": 15, "dialout": 20, "fax": 21, "voice": 22, "cdrom": 24, "floppy": 25,
    "tape": 26, "audio": 29, "dip": 30, "www-data": 33, "backup": 34, "operator": 37, "list": 38, "irc": 39, "src": 40,
    "shadow": 42, "utmp": 43, "video": 44, "sasl": 45, "plugdev": 46, "staff": 50, "games": 60, "users": 100,
    "nogroup": 65534,
}  # fmt: skip
ACCOUNTS = "".join(
    [
        "root:x:0:0:root:/root:/bin/bash\n",
        *(f"{name}:x:{u}:{g}:{name}:{home}:/usr/sbin/nologin\n" for name, (u, g, home) in SYSTEM_USERS.items()),
        "user:x:1000:1000:user:/home/user:/bin/bash\n",
    ]
)
GROUP = "".join([*(f"{name}:x:{g}:\n" for name, g in SYSTEM_GROUPS.items()), "sudo:x:27:user\n", "user:x:1000:\n"])
# Only inside: without passwords nothing can log in, and nothing listens.
SHADOW = "root::19000:0:99999:7:::\nuser::19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"
NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"
PROFILE = """\
: "${LANG:=C.UTF-8}"
export LANG
: "${PATH:=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
export PATH
if [ "${PS1-}" ] && [ -n "${BASH_VERSION-}" ] && [ -r /etc/bash.bashrc ]; then . /etc/bash.bashrc; fi
for script in /etc/profile.d/*.sh; do
  if [ -r "$script" ]; then . "$script"; fi
done
unset script
"""
DOT_PROFILE = """\
if [ -n "${BASH_VERSION-}" ] && [ -r "$HOME/.bashrc" ]; then . "$HOME/.bashrc"; fi
if [ -d "$HOME/.local/bin" ]; then PATH="$HOME/.local/bin:$PATH"; fi
"""
TEXTS = {
    "etc/passwd": ACCOUNTS,
    "etc/group": GROUP,
    "etc/nsswitch.conf": NSSWITCH,
    "etc/profile": PROFILE,
    "etc/shells": "/bin/sh\n/bin/bash\n",
    "etc/resolv.conf": "",
    "etc/fstab": "",
    "etc/environment": "",
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/security/limits.conf": "",
    "etc/security/pam_env.conf": "",
    "etc/timezone": "Etc/UTC\n",
    "etc/pip.conf": "[global]\nbreak-system-packages = true\n",  # it is this computer's only user who asks
    "root/.profile": DOT_PROFILE,
    "home/user/.profile": DOT_PROFILE,
    "root/.bashrc": "",
    "home/user/.bashrc": "",
}
DIRECTORIES = {
    "dev": 0o755, "etc": 0o755, "etc/default": 0o755, "etc/profile.d": 0o755, "etc/security": 0o755, "home": 0o755,
    "home/user": 0o755, "media": 0o755, "mnt": 0o755, "opt": 0o755, "proc": 0o555, "root": 0o700, "run": 0o755,
    "srv": 0o755, "sys": 0o555, "tmp": 0o1777, "usr": 0o755, "var": 0o755, "var/cache": 0o755, "var/lib": 0o755,
    "var/log": 0o755, "var/mail": 0o755, "var/opt": 0o755, "var/spool": 0o755, "var/tmp": 0o1777,
}  # fmt: skip

"""Names under .test that a test gives addresses to, seen by another process through the system's own resolver.

A small library in front of the C library's `getaddrinfo`: it reads the addresses from a file at every call.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

# One line per name: "NAME ADDRESS". A name without a line does not resolve; "-" hangs until it has an address.
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int found(const char *name, char *address) {
    char line[512], known[256];
    int is_there = 0;
    FILE *file = fopen(getenv("NAMES_FILE"), "r");
    while (file && !is_there && fgets(line, sizeof line, file))
        is_there = sscanf(line, "%255s %63s", known, address) == 2 && !strcmp(known, name);
    if (file) fclose(file);
    return is_there;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");
    char address[64];
    size_t length = name ? strlen(name) : 0;
    if (length < 5 || strcmp(name + length - 5, ".test")) return real(name, service, hints, out);
    while (found(name, address) && !strcmp(address, "-")) usleep(10000);
    return found(name, address) ? real(address, service, hints, out) : EAI_NONAME;
}
"""


class Names:
    """env: for the process that shall see the names. Needs a C compiler, as building the extension does."""

    def __init__(self, folder: Path) -> None:
        source, library = folder / "names.c", folder / "names.so"
        source.write_text(SOURCE)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
        self._file = folder / "names"
        self._new = folder / "names.new"
        self.say()
        self.env = {"LD_PRELOAD": str(library), "NAMES_FILE": str(self._file)}

    def say(self, **addresses: str) -> None:
        """From now on these names resolve (a="127.0.0.2" is a.test), and no other."""
        self._new.write_text("".join(f"{name}.test {address}\n" for name, address in addresses.items()))
        self._new.rename(self._file)

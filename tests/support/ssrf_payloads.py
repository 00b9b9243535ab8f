"""URLs that lead inside, or may be read so by one parser or another: some by hand, the rest made systematically.

`{port}` in a payload is the canary's.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

NAMES = {
    "rebind.example": ["127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "v6.example": ["::1"],
    "both.example": ["93.184.216.34", "127.0.0.1"],
    "last.example": ["93.184.216.34", "93.184.216.35", "10.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "zone.example": ["fe80::1%1"],
    "nothing.example": [],
    "rubbish.example": ["not an address"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "sixtofour.example": ["2002:7f00:1::"],
}

_BY_HAND = [
    # loopback, in every notation that a C library or a browser reads
    "http://127.0.0.1:{port}/",
    "http://127.0.0.2:{port}/",
    "http://127.255.255.254:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7F.0.0.1:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://00000000177.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://localhost.localdomain:{port}/",
    "http://ip6-localhost:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:{port}/",
    # IPv4 inside IPv6
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b:1::127.0.0.1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]:{port}/",
    "http://[2606:4700::5efe:127.0.0.1]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fc00::1]:{port}/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[ff02::1]:{port}/",
    "http://[2001:db8::1]:{port}/",
    "http://[3fff::1]:{port}/",
    "http://[100::1]:{port}/",
    # private, shared, metadata, reserved
    "http://10.0.0.1/",
    "https://10.255.255.255/",
    "http://172.16.0.1/",
    "http://172.31.255.254/",
    "http://192.168.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "https://169.254.169.254/latest/meta-data/",
    "http://0xa9fea9fe/",
    "http://2852039166/",
    "http://0251.0376.0251.0376/",
    "http://169.254.170.2/v2/credentials",
    "http://100.64.0.1/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://198.51.100.7/",
    "http://203.0.113.9/",
    "http://192.88.99.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    # signs that become digits and dots
    "http://１２７.0.0.1:{port}/",  # noqa: RUF001
    "http://127。0。0。1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://127.0.0.1%2eexample.com:{port}/",
    # parsers led astray
    "http://example.com@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://user:pass@localhost:{port}/",
    "https://user@example.com/",
    "http://127.0.0.1:{port}@example.com/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1:{port}?@example.com/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}",
    "http://127.0.0.1:80:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1\r\nHost: example.com:{port}/",
    "http://127.\n0.0.1:{port}/",
    "http://127.0.0.1\x00.example.com:{port}/",
    "http://127.0.0.1 :{port}/",
    " http://127.0.0.1:{port}/",
    "http://[::1:{port}/",
    "http://[127.0.0.1]:{port}/",
    "http://-127.0.0.1:{port}/",
    "http://" + "a" * 5000 + ":{port}/",
    "http://" + "127.0.0.1." * 60 + ":{port}/",
    "http://:{port}/",
    "",
    # schemes
    "HTTP://127.0.0.1:{port}/",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_GET%20/",
    "dict://127.0.0.1:{port}/",
    "ldap://127.0.0.1:{port}/",
    "ws://127.0.0.1:{port}/",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "data:text/plain,canary",
    "javascript:fetch('http://127.0.0.1:{port}/')",
    # names that lead inside
    *(f"http://{name}:{{port}}/" for name in NAMES),
    *(f"https://{name}/" for name in NAMES),
    # ports and plain http, outside
    "http://93.184.216.34/",
    "https://93.184.216.34:22/",
    "https://93.184.216.34:6379/",
]

_INSIDE = (
    *("127.0.0.1", "127.8.9.10", "0.0.0.0", "10.1.2.3", "172.20.1.1", "192.168.1.1", "169.254.169.254", "100.64.1.1"),
    *("169.254.170.2", "100.100.100.200", "192.0.0.192", "198.18.1.1", "224.0.0.251", "255.255.255.255"),
)
_FULL_WIDTH = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)})
_CIRCLED = str.maketrans({"0": "\u24ea", **{str(digit): chr(0x245F + digit) for digit in range(1, 10)}})


def v4_hosts(inside: str) -> list[str]:
    """An IPv4 address in the notations that C libraries, browsers and URL parsers know."""
    number = int(IPv4Address(inside))
    a, b, c, d = IPv4Address(inside).packed
    percent = "".join(f"%{ord(sign):02x}" for sign in inside)
    return [
        inside,
        f"{inside}.",
        # one number
        *(str(number), f"{number:#x}", f"0X{number:X}", f"0{number:o}", f"0x00000000{number:x}", f"00000000{number:o}"),
        str(number + 2**32),  # for who keeps 32 bits
        # two and three numbers
        *(f"{a}.{number % 2**24}", f"{a:#x}.{number % 2**24:#x}", f"0{a:o}.0{number % 2**24:o}"),
        *(f"{a}.{b}.{number % 2**16}", f"{a:#x}.{b:#x}.{number % 2**16:#x}", f"0{a:o}.0{b:o}.0{number % 2**16:o}"),
        # four numbers
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"0x{a:08x}.{b}.0{c:o}.{d}",
        f"{a:#x}.0{b:o}.{c}.{d:#x}",
        f"{a}.{b}.{c}.0{d:o}",
        f"{a:03}.{b:03}.{c:03}.{d:03}",  # octal, or decimal with zeros before it
        f"000000{a:o}.000000{b:o}.000000{c:o}.000000{d:o}",
        f"{a + 256}.{b + 256}.{c + 256}.{d + 256}",  # for who keeps 8 bits
        # signs that become digits and dots
        percent,
        percent.replace("%", "%25"),
        inside.replace(".", "%2e"),
        inside.replace(".", "%E3%80%82"),
        inside.replace(".", "\u3002"),
        inside.replace(".", "\uff0e"),
        inside.translate(_FULL_WIDTH),
        inside.translate(_CIRCLED),
        f"0x{number:08x}".translate(_FULL_WIDTH),
        inside.replace(".", "\u200b."),  # a space of no width
        inside.replace(".", "\u00ad."),  # a soft hyphen
    ]


def v6_hosts(inside: str) -> list[str]:
    """An IPv4 address in the IPv6 addresses that hold one, in brackets."""
    number = int(IPv4Address(inside))
    high, low = divmod(number, 2**16)
    mapped = IPv6Address(0xFFFF << 32 | number)
    client = number ^ 0xFFFFFFFF  # as Teredo writes it
    holders = [
        *(f"::ffff:{inside}", f"::ffff:{high:x}:{low:x}", f"::FFFF:{high:X}:{low:X}", f"0:0:0:0:0:ffff:{inside}"),
        *(mapped.exploded, f"::ffff:{inside}%25lo", f"::ffff:{inside}%1"),
        *(f"::{inside}", f"::{high:x}:{low:x}", f"0:0:0:0:0:0:{high:x}:{low:x}"),  # compatible
        *(f"::ffff:0:{inside}", f"::ffff:0:{high:x}:{low:x}"),  # translated
        *(f"64:ff9b::{inside}", f"64:ff9b::{high:x}:{low:x}", f"64:ff9b:1::{inside}"),  # NAT64
        f"64:ff9b:1:{high:x}:{low >> 8:x}:{(low & 0xFF) << 8:x}::",
        *(f"2002:{high:x}:{low:x}::", f"2002:{high:x}:{low:x}::1"),  # 6to4
        *(f"fe80::5efe:{inside}", f"2606:4700::5efe:{inside}", f"2606:4700::200:5efe:{inside}"),  # ISATAP
        f"2001:0:4136:e378:8000:63bf:{client >> 16:x}:{client & 0xFFFF:x}",  # Teredo: its client
        f"2001:0:{high:x}:{low:x}::",  # Teredo: its server
    ]
    return [f"[{holder}]" for holder in holders]


def payloads_for(inside: str) -> list[str]:
    """URLs that lead to an IPv4 address, with each notation of it, and in other ways."""
    hosts = [*v4_hosts(inside), *v6_hosts(inside)]
    ports = (0, 22, 25, 80, 443, 2375, 6379, 8080, 8443, 65535, 65536, "080", "+80", "\uff18\uff10")
    return [
        *(f"http://{host}:{{port}}/" for host in hosts),
        *(f"https://{host}/" for host in hosts),
        *(f"https://{inside}:{port}/" for port in ports),
        *(f"{scheme}://{inside}:{{port}}/" for scheme in ("HTTP", "hTtP", "http\t", "\x01http")),
        *(f"{scheme}://{inside}/" for scheme in ("HTTPS", "hTtPs", "https\t", "\x01https")),
        f"http://example.com@{inside}:{{port}}/",
        f"https://example.com:443@{inside}/",
        f"https://example.com%40@{inside}/",
        f"https://a@example.com@{inside}/",
        f"https://@{inside}/",
        f"https://:@{inside}/",
        f"https:\\\\{inside}/",
        f"https:/\\{inside}/",
        f"https:{inside}/",
        f"https:////{inside}/",
        f"https://{inside}\\.example.com/",
        f"https://{inside}\t/",
        f"https://{inside}%00.example.com/",
        f"https://{inside}%0d%0aHost:%20example.com/",
    ]


PAYLOADS = list(dict.fromkeys([*_BY_HAND, *(payload for inside in _INSIDE for payload in payloads_for(inside))]))

"""Addresses that must never be connected to, by class. `PORT` is where a canary listens on loopback."""

from __future__ import annotations

PRIVATE_4 = [
    "0.0.0.0",  # noqa: S104
    "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200",
    "100.127.255.255", "127.0.0.1", "127.1.2.3", "127.255.255.255", "168.63.129.16", "169.254.0.1",
    "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192",
    "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1", "192.168.255.255",
    "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255",
]  # fmt: skip
PRIVATE_6 = [
    "::", "::1", "::127.0.0.1", "::10.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:7f00:1",
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8",
    "64:ff9b::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "64:ff9b:1::808:808",
    "2002:7f00:1::", "2002:a00:1::1", "2002:c0a8:1::", "2002:808:808::", "2001::1", "2001:0:7f00:1::",
    "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1",
    "3fff::1", "2606:4700::5efe:127.0.0.1", "2606:4700::200:5efe:10.0.0.1", "fc00::1", "fd00::1",
    "fd00:ec2::254", "fe80::1", "febf::1", "fec0::1", "feff::1", "ff02::1", "ff0e::1", "100::1",
    "5f00::1", "4000::1", "e000::1", "1::1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1",
    "223.255.255.255", "2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "::ffff:8.8.8.8",
    "64:ff9b::808:808", "2606:4700::5efe:8.8.8.8",
]  # fmt: skip
SPELLINGS = [  # of a loopback address, or of a host that programs read differently
    "http://127.1:PORT/", "http://127.0.1:PORT/", "http://2130706433:PORT/", "http://0x7f000001:PORT/",
    "http://0x7f.0.0.1:PORT/", "http://0177.0.0.1:PORT/", "http://017700000001:PORT/",
    "http://127.0.0.01:PORT/", "http://127.0.0.1.:PORT/", "http://0:PORT/", "http://00000127.0.0.1:PORT/",
    "http://127.0.0.0x1:PORT/", "http://256.0.0.1:PORT/", "http://127.0.0.1.5:PORT/",
    "http://１２７.0.0.1:PORT/", "http://127。0。0。1:PORT/", "http://⑫7.0.0.1:PORT/", "http://١٢٧.0.0.1:PORT/",
    "http://[::1]:PORT/", "http://[::1%25lo]:PORT/", "http://[::1%lo]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/", "http://[::127.0.0.1]:PORT/", "http://[0:0:0:0:0:0:0:1]:PORT/",
    "http://[127.0.0.1]:PORT/", "http://[v1.fe80]:PORT/", "http://[::1:PORT/", "http://::1:PORT/",
    "http://localhost:PORT/", "http://localhost.:PORT/", "http://LOCALHOST:PORT/",
    "http://ｌｏｃａｌｈｏｓｔ:PORT/", "http://ip6-localhost:PORT/", "http://user@127.0.0.1:PORT/",
    "http://good.example@127.0.0.1:PORT/", "http://127.0.0.1:PORT@good.example/",
    "http://good.example:80@127.0.0.1:PORT/", "http://127.0.0.1\\@good.example:PORT/",
    "http://good.example\\@127.0.0.1:PORT/", "http://good.example#@127.0.0.1:PORT/",
    "http:\\\\127.0.0.1:PORT\\", "http://127.0.0.1 :PORT/", " http://127.0.0.1:PORT/",
    "http://127.0.0.1\t:PORT/", "http://127.0.0.1\n:PORT/", "http://127.0.0.1\r\nHost:x:PORT/",
    "http://127.0.0.1\x00:PORT/", "http://127.0.0.1\u200b:PORT/", "http://127.0.0.1\xad:PORT/",
    "http://good.example‥:PORT/", "http:127.0.0.1:PORT/", "http:/127.0.0.1:PORT/",
    "http:///127.0.0.1:PORT/", "//127.0.0.1:PORT/", "127.0.0.1:PORT", "https://127.0.0.1:PORT/",
    "ftp://127.0.0.1:PORT/", "gopher://127.0.0.1:PORT/", "file:///etc/passwd", "data:text/plain,x",
    "dict://127.0.0.1:PORT/", "ws://127.0.0.1:PORT/", "javascript:alert(1)",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/", "unix:///var/run/docker.sock", "http://127.0.0.1:PORT.80/",
    "http://127.0.0.1:+80/", "http://127.0.0.1:-1/", "http://127.0.0.1:８０/", "http://127.0.0.1:99999/",
    "http://127.0.0.1:/", "http://127.0.0.1:080000/", "http:// 127.0.0.1:PORT/",
    "http://127.0.0.1%2f:PORT/", "http://127%2e0%2e0%2e1:PORT/", "http://%31%32%37.0.0.1:PORT/",
    "http://-a.example:PORT/", "http://a..example:PORT/", "http://.:PORT/", "http://:PORT/", "http://",
    "http", "", "http://" + "a" * 9000,
]  # fmt: skip

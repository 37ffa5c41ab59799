"""``REDIS_URL``: valid values, and messages without secrets for invalid ones."""

from __future__ import annotations

import pytest

from openrouter_guard.address import Address, Login, Tls, Topology, parse_address
from openrouter_guard.errors import ConfigurationError

ONE = (("redis", 6379),)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://redis:6379/0", Address(Topology.SERVER, ONE)),
        pytest.param("redis://redis", Address(Topology.SERVER, ONE), id="the usual port, the first database"),
        pytest.param("redis://", Address(Topology.SERVER, (("localhost", 6379),)), id="the usual host"),
        ("redis://redis:7000/3", Address(Topology.SERVER, (("redis", 7000),), database=3)),
        pytest.param("redis://redis/3?db=4", Address(Topology.SERVER, ONE, database=4), id="the option counts"),
        ("redis://[::1]:6380", Address(Topology.SERVER, (("::1", 6380),))),
        ("redis://ann:pw@redis", Address(Topology.SERVER, ONE, login=Login("ann", "pw"))),
        ("redis://:pw@redis", Address(Topology.SERVER, ONE, login=Login("", "pw"))),
        ("redis://redis?username=ann&password=p%26w", Address(Topology.SERVER, ONE, login=Login("ann", "p&w"))),
        pytest.param(
            "redis://a%40b:%2F%3F%23%25:%40@redis",
            Address(Topology.SERVER, ONE, login=Login("a@b", "/?#%:@")),
            id="a password of signs",
        ),
        pytest.param(
            "redis://:p@ss@redis", Address(Topology.SERVER, ONE, login=Login("", "p@ss")), id="a bare @ in it"
        ),
        pytest.param(
            "redis://redis/0?socket_timeout=5&health_check_interval=30",
            Address(Topology.SERVER, ONE),
            id="what other clients are tuned by",
        ),
        ("unix:///run/redis.sock", Address(Topology.SOCKET, path="/run/redis.sock")),
        (
            "unix://ann:pw@/run/my%20redis.sock?db=2",
            Address(Topology.SOCKET, path="/run/my redis.sock", database=2, login=Login("ann", "pw")),
        ),
        ("rediss://redis", Address(Topology.SERVER, ONE, tls=Tls())),
        (
            "rediss://redis?ssl_ca_certs=/ca.pem&ssl_certfile=/me.pem&ssl_keyfile=/me.key",
            Address(Topology.SERVER, ONE, tls=Tls("/ca.pem", "/me.pem", "/me.key")),
        ),
        (
            "rediss://redis?ssl_cert_reqs=CERT_NONE&ssl_check_hostname=false",
            Address(Topology.SERVER, ONE, tls=Tls(verifies=False, checks_hostname=False)),
        ),
        (
            "redis+sentinel://s1,s2:26380/main",
            Address(Topology.SENTINEL, (("s1", 26379), ("s2", 26380)), service="main"),
        ),
        (
            "rediss+sentinel://ann:pw@s1/main/2?sentinel_username=bob&sentinel_password=spw",
            Address(
                Topology.SENTINEL,
                (("s1", 26379),),
                service="main",
                database=2,
                login=Login("ann", "pw"),
                sentinel_login=Login("bob", "spw"),
                tls=Tls(),
            ),
        ),
        ("redis+cluster://c1,[::2]:7001", Address(Topology.CLUSTER, (("c1", 6379), ("::2", 7001)))),
        ("rediss+cluster://:pw@c1/0", Address(Topology.CLUSTER, (("c1", 6379),), login=Login("", "pw"), tls=Tls())),
    ],
)
def test_what_it_says(url: str, expected: Address) -> None:
    assert parse_address(url) == expected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://ann:hunter2@redis", "redis://redis:6379/0"),
        ("redis://redis?password=hunter2", "redis://redis:6379/0"),
        ("unix://:hunter2@/run/redis.sock", "unix:///run/redis.sock"),
        ("rediss://:hunter2@[::1]/1?ssl_certfile=/c", "rediss://[::1]:6379/1"),
        (
            "redis+sentinel://:hunter2@s1,s2/main?sentinel_password=hunter2",
            "redis+sentinel://s1:26379,s2:26379/main/0",
        ),
        ("rediss+cluster://ann:hunter2@c1,c2", "rediss+cluster://c1:6379,c2:6379"),
    ],
)
def test_it_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert str(parse_address(url)) == shown
    assert "hunter2" not in repr(parse_address(url))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("localhost:6379", "is not an address: write redis://", id="no scheme"),
        pytest.param("hunter2:hunter2@redis", "is not an address: write redis://", id="no scheme and a password"),
        pytest.param("http://redis", "starts with 'http': write redis://", id="another scheme"),
        pytest.param("hunter-2://redis", "is not an address", id="no scheme at all"),
        pytest.param("redis+unix:///run", "starts with 'redis\\+unix'", id="a mixture"),
        pytest.param("redis://a,b", "no usable host and port", id="two servers"),
        pytest.param("redis://redis:0", "no usable host and port", id="port 0"),
        pytest.param("redis://redis:65536", "no usable host and port", id="a port too high"),
        pytest.param("redis://[::1", "no usable host and port", id="half a bracket"),
        pytest.param("redis://::1", "no usable host and port", id="no brackets"),
        pytest.param("redis://:hunter2", "no usable host and port", id="a password without a host"),
        pytest.param("redis://:1/hunter2@redis", "a password, / is written %2F", id="a slash in the password"),
        pytest.param("redis://:1#hunter2@redis", "# %23", id="a hash in the password"),
        pytest.param("redis://:1?hunter2@redis", "\\? %3F", id="a question mark in the password"),
        pytest.param("redis://:hunter2/@redis", "a password, / is written %2F", id="a slash at its end"),
        pytest.param("redis://redis/first", "does not end in a database number", id="a database with a name"),
        pytest.param("redis://redis?db=-1", "does not end in a database number", id="a database below zero"),
        pytest.param("redis://redis?ssl_ca_cert=/x", "'ssl_ca_cert', which is none of db, password", id="a typo"),
        pytest.param("redis://redis?Hunter2=x", "has an option, which is none of", id="a strange option"),
        pytest.param("redis://redis?ssl_ca_certs=/x", "ssl_ca_certs, and no TLS: begin it with rediss", id="no TLS"),
        pytest.param("rediss://redis?ssl_keyfile=/x", "no ssl_certfile that the key belongs to", id="a key alone"),
        pytest.param("rediss://redis?ssl_cert_reqs=maybe", "write one of required", id="half a check"),
        pytest.param("rediss://redis?ssl_check_hostname=2", "write one of true", id="no truth"),
        pytest.param("unix://redis/run/redis.sock", "names a host and a socket", id="a socket elsewhere"),
        pytest.param("unix://", "names no socket: write unix:///path", id="no socket"),
        pytest.param("redis+sentinel://s1", "the name of the server at the Sentinels", id="no name"),
        pytest.param(
            "redis+sentinel://s1/0/main", "does not end in a database number", id="name and number changed places"
        ),
        pytest.param("redis+sentinel://s1,/main", "a host without a name", id="a comma too many"),
        pytest.param(
            "redis://redis?sentinel_password=hunter2", "names none: write redis\\+sentinel", id="one too many"
        ),
        pytest.param("redis+cluster://c1/1", "names a database of a Cluster, which has one", id="a second database"),
    ],
)
def test_what_is_wrong_is_said_and_what_to_write_and_no_secret(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"REDIS_URL .*{words}") as caught:
        parse_address(url)
    assert "hunter2" not in str(caught.value).lower()


def test_a_cluster_needs_a_scope_with_a_name() -> None:
    assert parse_address("redis+cluster://c1").for_scope("main").topology is Topology.CLUSTER
    with pytest.raises(ConfigurationError, match=r"REDIS_URL names a Cluster.*such as OPENROUTER_GUARD_SCOPE=main"):
        parse_address("redis+cluster://c1").for_scope("default")

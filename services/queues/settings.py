"""Settings of the work queues."""

import os
from typing import Literal

from pydantic import Field, field_serializer, field_validator

from services.queues.endpoint import masked, parsed
from services.settings import Extendable, Operational, Settings


class QueueSettings(Settings):
    """Redis Streams between the services."""

    url: Operational[str | None] = None
    """Of a Redis of 6.2 or newer: redis://user:password@host:port/db, with rediss for TLS (then
    also ?ssl_ca_certs=, ssl_certfile=, ssl_keyfile=, ssl_check_hostname=). Of a cluster: any of its
    nodes, or some as host:port,host:port. Of a primary that Sentinels watch:
    redis+sentinel://user:password@host:port,host:port/service, and theirs as ?sentinel_username=
    and sentinel_password=. Without it REDIS_URL, and without that an embedded server. An ACL user
    needs `~pairloop:* +evalsha +script|load +get +set +incr +incrby +del +unlink +expire +persist
    +pexpire +ttl +pttl +time +hget +hset +hmget +hgetall +hdel +hincrby +hsetnx +rpush +lindex
    +lrem +sadd +sismember +xadd +xdel +xack +xrange +xrevrange +xpending +xclaim +xgroup
    +xinfo +xread +xreadgroup +ping`, for another database than 0 `+select`, on a cluster
    `+cluster|slots +asking`; `+info +config|get` let the run say whether the server would
    forget."""
    fsync: Operational[Literal["everysec", "always"]] = "everysec"
    """Of the embedded server's append-only file: "everysec" may lose a second on power loss."""
    credits: Operational[int] = Field(512, ge=1)
    """Prompts between dispatch and training at most: the backpressure."""
    max_failures: Operational[int] = Field(3, ge=1)
    """Tries of one item that end in an error before it goes to the dead letters."""
    retry_s: Operational[float] = Field(1.0, ge=0.0)
    """Until an item that failed is tried again, by whoever asks first; twice as long after each
    failure. What is wrong for a moment shall not use up all tries."""
    max_deaths: Operational[int] = Field(4, ge=1)
    """Workers that end while they hold an item before it goes to the dead letters."""
    reclaim_idle_s: Operational[float] = Field(60.0, gt=0.0)
    """A worker that has not renewed what it holds for this long, as it stands still or its machine
    is gone, loses it to another; how long the work takes does not matter."""
    lease_s: Operational[float] = Field(15.0, ge=1.0)
    """How long a run stays its orchestrator's when that is no longer heard of: nobody else takes it
    over before."""
    payloads: Operational[Literal["folder", "redis"]] = "folder"
    """Where prompts, rollouts and pairs wait that are larger than `inline_bytes`: in a folder in
    the run's own, which every node has to see, or in Redis as well."""
    inline_bytes: Operational[int] = Field(65_536, ge=0)
    """Up to so many bytes they are in Redis. What it holds of a run at most, --dry-run says."""
    expire_s: Operational[int] = Field(30 * 86_400, ge=0)
    """Redis forgets a run that failed or was killed when nobody has gone on with it for so long;
    0: never. What a checkpoint holds is safe. A finished run is kept for a day."""
    outage_s: Operational[float] = Field(300.0, ge=0.0)
    """How long a running run waits for a Redis that went away: a restart, a failover."""
    connect_timeout_s: Operational[float] = Field(5.0, gt=0.0)
    """Seconds to connect and to hear what the server is."""

    @property
    def configured_url(self) -> str | None:
        """`url`, or REDIS_URL; without either the embedded server is meant."""
        return self.url or os.environ.get("REDIS_URL")

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: str | None) -> str | None:
        if url is not None:
            parsed(url)
        return url

    @field_serializer("url", when_used="json")
    def _without_password(self, url: str | None) -> str | None:
        """Configs are written to files: the password stays in REDIS_URL or on the command line."""
        return url and masked(url)


class EpisodeSettings(Settings):
    """The episodes of an online run."""

    count: Extendable[int] = Field(8, ge=1)
    """Rounds of sampling, training and publishing."""
    prompts: int = Field(128, ge=1)
    """Prompts an episode."""
    max_staleness: int = Field(0, ge=0)
    """0: strictly on-policy; s: sampling may run s versions ahead of the learner."""
    in_flight: Operational[int] = Field(128, ge=1)
    """Prompts between dispatch and pairing at most: what a pause has to wait for."""
    keep_every: Operational[int] = Field(0, ge=0)
    """Keep the policy of every so many episodes as a model folder, checkpoints/episode-<number> of
    the artifact; 0: the last one alone."""
    max_failed: Operational[float] = Field(0.1, ge=0.0, le=1.0)
    """Share of an episode's prompts that may be lost to errors (a reward that raises, a prompt
    that is too long) or to weights older than `max_staleness` allows: above it, or when all are
    lost, the episode has failed and the run ends."""
    timeout_s: Operational[float] = Field(3600.0, gt=0.0)
    """Longest time without any progress in an episode that is not paused."""

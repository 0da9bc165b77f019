"""A fault of the storm: another number of engines and pairing workers, by the admin API."""

import time

import grpc

from pairloop.admin.v1 import admin_pb2 as admin
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from tests.chaos.faults import Sky


def scale(sky: Sky) -> bool:
    """One to three of each, while the run goes on; nobody waits until they are there."""
    try:
        with grpc.insecure_channel(f"127.0.0.1:{sky.admin_port}") as channel:
            stub = AdminServiceStub(channel)  # type: ignore[no-untyped-call]
            for kind in (admin.WORKER_KIND_ROLLOUT, admin.WORKER_KIND_PAIRING):
                request = admin.ScaleWorkersRequest(
                    kind=kind,
                    count=sky.rng.randint(1, 3),
                    reason="chaos",
                    request_id=f"{time.time()}.{kind}",
                    actor="storm",
                )
                stub.ScaleWorkers(request, timeout=10)
        return True
    except grpc.RpcError:
        return False

"""What of the lab's is in a cluster, found by label."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from drivers.kubernetes.connection.client import Api, Json
from drivers.kubernetes.connection.errors import status_of, translated
from drivers.kubernetes.objects import labels
from drivers.kubernetes.objects.manifests import Form
from drivers.kubernetes.objects.vmi import GROUP, PLURAL, VERSION
from drivers.kubernetes.pods.deployment import Deployment
from drivers.kubernetes.pods.instance import GONE_TIMEOUT_S, Place, Pod, Remnant, await_gone, remove
from drivers.kubernetes.pods.launch import Ground
from drivers.kubernetes.pods.owned import Owned, job, vmi
from drivers.kubernetes.pods.routes import addresses
from lab.driver import Instance, Leftover, bears


def find_instances(ground: Ground, wanted: Mapping[str, str]) -> Sequence[Instance]:
    """Every deployment and job, and every pod that belongs to none, that bears `wanted`; not those of Knative's, which
    are parts of an instance of its own driver's. Raises DriverError."""
    api = ground.api
    with translated("list pods, deployments and jobs"):
        services = {_id(one) for one in _listed(ground, "service", {})}
        owners = itertools.chain(
            _plain(_listed(ground, "deployment", wanted)),
            ({**one, "kind": "Job"} for one in _listed(ground, "job", wanted)),
            ({**one, "kind": "VirtualMachineInstance"} for one in _listed(ground, "vmi", wanted)),
        )
        alone = (pod for pod in _listed(ground, "pod", wanted) if not pod["metadata"].get("ownerReferences"))
        found: list[Instance] = []
        for thing in itertools.chain(owners, alone):
            metadata = thing["metadata"]
            place = Place(
                api=api,
                namespace=metadata["namespace"],
                name=metadata["name"],
                local=ground.local,
                has_service=_id(thing) in services,
                losing=ground.losing,
            )
            endpoint = addresses(api, ground.pool, ground.route, place.namespace, place.name)
            own = labels.labels_of(thing)
            if thing.get("kind") == "VirtualMachineInstance":
                found.append(Owned(place, vmi(api), labels=own, endpoint=endpoint))
                continue
            if "template" not in thing["spec"]:
                found.append(Pod(place, labels=own, endpoint=endpoint))
                continue
            if thing.get("kind") == "Job":
                found.append(Owned(place, job(api), labels=own, endpoint=endpoint))
                continue
            container = thing["spec"]["template"]["spec"]["containers"][0]
            form = Form(
                image=container["image"],
                pull_policy=container["imagePullPolicy"],
                security=container.get("securityContext") or {},
                requests=(container.get("resources") or {}).get("requests") or {},
                own_tmp=not container.get("volumeMounts"),
            )
            found.append(Deployment(place, labels=own, endpoint=endpoint, form=form))
    return found


def find_remnants(ground: Ground, wanted: Mapping[str, str]) -> Sequence[Leftover]:
    """Services that lead to nothing any more, and namespaces of runs, that bear `wanted`. Raises DriverError."""
    api, core = ground.api, ground.api.core
    with translated("list services"):
        services = list(_plain(_listed(ground, "service", wanted)))
        led_to = {_id(one) for resource in ("pod", "deployment", "job", "vmi") for one in _listed(ground, resource, {})}
    idle = [one for one in services if _id(one) not in led_to]
    return [
        *(_remnant(api, "service", one, core.delete_namespaced_service, core.read_namespaced_service) for one in idle),
        *find_namespaces(ground, wanted),
    ]


def find_namespaces(ground: Ground, wanted: Mapping[str, str]) -> Sequence[Leftover]:
    """Namespaces of runs that bear `wanted`. Raises DriverError."""
    api, core = ground.api, ground.api.core
    with translated("list namespaces"):
        namespaces = _listed(ground, "namespace", wanted)
        return [_remnant(api, "namespace", one, core.delete_namespace, core.read_namespace) for one in namespaces]


def pods_of_the_lab(ground: Ground) -> list[str]:
    """The uid of every pod of the lab's. Raises DriverError."""
    with translated("list pods"):
        return [str(pod["metadata"]["uid"]) for pod in _listed(ground, "pod", {})]


def ports_in_use(api: Api) -> set[int]:
    """The ports of nodes that Services and pods use, whosever they are. Raises DriverError."""
    with translated("list services and pods"):
        services = api.each(api.core.list_service_for_all_namespaces)
        ports = {port.get("nodePort") for one in services for port in one["spec"].get("ports") or ()}
        pods = api.each(api.core.list_pod_for_all_namespaces)
        ports |= {
            port.get("hostPort") for one in pods for box in one["spec"]["containers"] for port in box.get("ports") or ()
        }
    return {int(port) for port in ports if port}


def _remnant(api: Api, kind: str, thing: Json, delete: Callable[..., Any], read: Callable[..., Any]) -> Remnant:
    name, namespace = thing["metadata"]["name"], thing["metadata"].get("namespace", "")
    where = (name, namespace) if namespace else (name,)

    def take() -> None:
        remove(api, delete, *where)
        await_gone(f"the {kind} {name}", lambda: api.found(read, *where) is not None, None, GONE_TIMEOUT_S)

    return Remnant(kind, _id(thing), labels.labels_of(thing), take)


def _listed(ground: Ground, resource: str, wanted: Mapping[str, str]) -> Iterator[Json]:
    """The objects that bear `wanted`: by the selector, whose values may be digests, and then by the labels proper. Of
    a cluster that shows this user no more than some namespaces, those in them."""
    api, selector = ground.api, labels.selector(wanted)
    core, apps = api.core, api.apps
    listings: dict[str, tuple[Callable[..., Any], Callable[..., Any] | None]] = {
        "pod": (core.list_pod_for_all_namespaces, core.list_namespaced_pod),
        "service": (core.list_service_for_all_namespaces, core.list_namespaced_service),
        "deployment": (apps.list_deployment_for_all_namespaces, apps.list_namespaced_deployment),
        "job": (api.batch.list_job_for_all_namespaces, api.batch.list_namespaced_job),
        "vmi": (partial(api.custom.list_cluster_custom_object, *_VMI), _vmis_of(api)),
        "namespace": (core.list_namespace, None),
    }
    everywhere, within = listings[resource]
    try:
        yield from _bearing(api.each(everywhere, label_selector=selector), wanted)
    except Exception as error:
        if status_of(error) == 404 and resource == "vmi":
            return  # a cluster without KubeVirt has none
        if status_of(error) != 403 or not ground.namespaces:
            raise
        if within is None:  # who may not list namespaces has made none
            return
        if resource in ("job", "vmi") and not _may_list(api, within, ground.namespaces):
            return
        for name in sorted(ground.namespaces):
            yield from _bearing(api.each(within, name, label_selector=selector), wanted)


_VMI = (GROUP, VERSION, PLURAL)


def _vmis_of(api: Api) -> Callable[..., Any]:
    """A listing of a namespace's, as the client's own are called."""
    listing: Callable[..., Any] = api.custom.list_namespaced_custom_object

    def within(namespace: str, **options: Any) -> Any:
        return listing(GROUP, VERSION, namespace, PLURAL, **options)

    return within


def _may_list(api: Api, within: Callable[..., Any], namespaces: Iterable[str]) -> bool:
    """Whether this user may: who may not list an object of a kind that few use has made none."""
    try:
        for name in namespaces:
            api.call(within, name, limit=1)
    except Exception as error:
        if status_of(error) in (403, 404):
            return False
        raise
    return True


def _bearing(things: Iterable[Json], wanted: Mapping[str, str]) -> Iterator[Json]:
    return (thing for thing in things if bears(labels.labels_of(thing), wanted))


def _plain(things: Iterable[Json]) -> Iterator[Json]:
    return (thing for thing in things if labels.OF_KNATIVE not in (thing["metadata"].get("labels") or {}))


def _id(thing: Mapping[str, Any]) -> str:
    metadata = thing["metadata"]
    return "/".join(part for part in (metadata.get("namespace"), metadata["name"]) if part)

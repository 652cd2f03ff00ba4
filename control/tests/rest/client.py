"""Creates, reads, updates and deletes each kind of object by NetBird's Python client, and reads the rest of what it asks for.

SERVER, TOKEN: whom to ask, and as whom: the service user of the first start, where there is no person yet but two who wait for
approval. PEER: the id of a peer that may be changed and deleted. PATHS: the paths that are served, one a line, their parameters as
`{}`; what needs another one is left out. Prints each kind that was done, one a line.
"""

import base64
import os
import sys

from netbird import APIClient, models
from netbird.exceptions import (
    NetBirdAuthenticationError,
    NetBirdNotFoundError,
    NetBirdValidationError,
)

PASSWORD = "correct horse battery"
server, token, peer = (os.environ[name] for name in ("SERVER", "TOKEN", "PEER"))
paths = set(os.environ["PATHS"].split())
client = APIClient(host=server, api_token=token)
bearer = APIClient(host=server, api_token=token, auth_scheme="Bearer")
everyone = next(group for group in client.groups.list() if group["name"] == "All")["id"]


def refused(error, call, *arguments):
    try:
        call(*arguments)
    except error as refusal:
        assert refusal.response_data["code"] == refusal.status_code, refusal.response_data
        assert refusal.response_data["message"], refusal.response_data
        return refusal
    raise AssertionError(f"{call} {arguments} was not refused")


def goes_round(kind, path, resource, create, update, changed, model=None, of=()):
    """A whole life of one object; `changed` is what an update must have done."""
    if path not in paths:
        return
    listed, make, read, change, delete = (getattr(resource, name) for name in kind[1])
    before = len(listed(*of))
    made = make(*of, create)
    one = (*of, made["id"])
    shown = read(*one)
    assert {name: shown[name] for name in shown if name != "key"} == {name: made[name] for name in shown if name != "key"}
    if model:
        model.model_validate(shown)
    assert [item["id"] for item in listed(*of)].count(made["id"]) == 1
    answer = change(*one, update)
    for name, value in changed.items():
        assert answer[name] == value and read(*one)[name] == value, (name, answer)
    delete(*one)
    refused(NetBirdNotFoundError, read, *one)
    assert len(listed(*of)) == before
    print(kind[0])


def plain(name):
    return name, ("list", "create", "get", "update", "delete")


def part(name, one, many):
    return name, (f"list_{many}", f"create_{one}", f"get_{one}", f"update_{one}", f"delete_{one}")


goes_round(
    plain("group"), "/api/groups", client.groups,
    models.GroupCreate(name="ops", peers=[peer]), models.GroupUpdate(name="ops2", peers=[]),
    {"name": "ops2", "peers_count": 0}, models.Group,
)
goes_round(
    plain("setup key"), "/api/setup-keys", client.setup_keys,
    models.SetupKeyCreate(name="k", type="reusable", expires_in=86400, auto_groups=[], usage_limit=0),
    models.SetupKeyUpdate(revoked=True, auto_groups=[]),
    {"revoked": True, "state": "revoked"}, models.SetupKey,
)

network = client.networks.create(models.NetworkCreate(name="site", description="d"))["id"]
group = client.groups.create(models.GroupCreate(name="servers"))["id"]
goes_round(
    plain("network"), "/api/networks", client.networks,
    models.NetworkCreate(name="other"), models.NetworkUpdate(name="another", description="d"),
    {"name": "another", "description": "d"}, models.Network,
)
goes_round(
    part("resource", "resource", "resources"), "/api/networks/{}/resources", client.networks,
    {"name": "db", "address": "10.0.0.5", "enabled": True, "groups": [group]},
    {"name": "db", "address": "10.0.0.0/24", "enabled": False, "groups": [group]},
    {"address": "10.0.0.0/24", "type": "subnet", "enabled": False}, of=(network,),
)
goes_round(
    part("router", "router", "routers"), "/api/networks/{}/routers", client.networks,
    {"peer": peer, "metric": 9, "masquerade": True, "enabled": True},
    {"peer": peer, "metric": 10, "masquerade": False, "enabled": True},
    {"metric": 10, "masquerade": False}, of=(network,),
)
assert client.networks.list_all_routers() == []
rule = models.PolicyRule(
    name="r", action="accept", protocol="tcp", ports=["443"], sources=[everyone], destinations=[group], bidirectional=False
)
goes_round(
    plain("policy"), "/api/policies", client.policies,
    models.PolicyCreate(name="p", rules=[rule]),
    models.PolicyUpdate(name="p2", enabled=False, rules=[rule.model_copy(update={"protocol": "udp", "ports": ["53"]})]),
    {"name": "p2", "enabled": False}, models.Policy,
)
goes_round(
    plain("posture check"), "/api/posture-checks", client.posture_checks,
    models.PostureCheckCreate(name="v", description="", checks={"nb_version_check": {"min_version": "1.0.0"}}),
    models.PostureCheckUpdate(name="v2", description="", checks={"nb_version_check": {"min_version": "1.2.0"}}),
    {"name": "v2"}, models.PostureCheck,
)
goes_round(
    plain("route"), "/api/routes", client.routes,
    models.RouteCreate(network_id="lab", description="", enabled=True, peer=peer, network="10.9.0.0/24", network_type="IPv4", metric=9999,
                       masquerade=False, groups=[everyone], keep_route=False),
    models.RouteUpdate.model_validate({"network_id": "lab", "description": "", "enabled": True, "peer": peer, "network": "10.9.0.0/24", "metric": 100,
     "masquerade": True, "groups": [everyone], "keep_route": False}),
    {"metric": 100, "masquerade": True}, models.Route,
)
nameservers = {
    "name": "ns", "description": "", "nameservers": [{"ip": "192.0.2.53", "ns_type": "udp", "port": 53}], "enabled": True,
    "groups": [everyone], "primary": True, "domains": [], "search_domains_enabled": False,
}
goes_round(
    part("nameserver group", "nameserver_group", "nameserver_groups"), "/api/dns/nameservers", client.dns,
    nameservers, {**nameservers, "enabled": False}, {"enabled": False},
)
goes_round(
    plain("zone"), "/api/dns/zones", client.dns_zones,
    models.DNSZoneCreate(name="z", domain="example.com", enabled=True, enable_search_domain=False, distribution_groups=[everyone]),
    models.DNSZoneUpdate(name="z2", domain="example.com", enabled=True, enable_search_domain=True, distribution_groups=[everyone]),
    {"name": "z2", "enable_search_domain": True}, models.DNSZone,
)
if "/api/dns/zones" in paths:
    zone = client.dns_zones.create(
        models.DNSZoneCreate(name="r", domain="example.org", enable_search_domain=False, distribution_groups=[everyone])
    )["id"]
    goes_round(
        part("record", "record", "records"), "/api/dns/zones/{}/records", client.dns_zones,
        models.DNSRecordCreate(name="a.example.org", type="A", content="192.0.2.1", ttl=300),
        models.DNSRecordUpdate(name="a.example.org", type="A", content="192.0.2.2", ttl=600),
        {"content": "192.0.2.2", "ttl": 600}, models.DNSRecord, of=(zone,),
    )
    settings = client.dns.update_settings({"disabled_management_groups": [group]})
    assert client.dns.get_settings() == settings == {"disabled_management_groups": [group]}
    client.dns.update_settings({"disabled_management_groups": []})
    print("DNS settings")

# The package asks for a mail address of every user; a service user has none, and what is said of one is not kept.
user = client.users.create(
    models.UserCreate(email="ci@example.org", name="ci", role="user", is_service_user=True, auto_groups=[])
)
assert models.User.model_validate(client.users.get(user["id"])).is_service_user and user["email"] == ""
assert user["id"] in [other["id"] for other in client.users.list()]
change = models.UserUpdate(role="admin", auto_groups=[group], is_blocked=False)
assert client.users.update(user["id"], change)["role"] == client.users.get(user["id"])["role"] == "admin"
made = client.tokens.create(user["id"], models.TokenCreate(name="t", expires_in=30))
# Its model wants `creation_date`, which NetBird's document calls `created_at`.
assert client.tokens.get(user["id"], made["personal_access_token"]["id"])["name"] == "t"
assert APIClient(host=server, api_token=made["plain_token"]).users.get_current()["id"] == user["id"]
assert len(client.tokens.list(user["id"])) == 1
client.tokens.delete(user["id"], made["personal_access_token"]["id"])
refused(NetBirdAuthenticationError, APIClient(host=server, api_token=made["plain_token"]).users.get_current)
print("token")
client.users.delete(user["id"])
refused(NetBirdNotFoundError, client.users.get, user["id"])
person = client.users.create(models.UserCreate(email="ann@example.org", name="Ann", role="user", auto_groups=[group]))
assert models.User.model_validate(person).status == "invited" and person["auto_groups"] == [group]
# A link for a password, of which the package's call keeps nothing but that it was made.
assert client.users.invite(person["id"]) is None
assert [invite["email"] for invite in client.users.list_invites()] == ["ann@example.org"]
client.users.delete(person["id"])
assert client.users.list_invites() == []
print("user")

# Who came by the identity provider waits.
waiting = [user for user in client.users.list() if user["pending_approval"]]
assert len(waiting) == 2
assert not client.users.approve(waiting[0]["id"])["pending_approval"]
client.users.reject(waiting[1]["id"])
refused(NetBirdNotFoundError, client.users.get, waiting[1]["id"])
assert not client.users.get(waiting[0]["id"])["pending_approval"]
refused(NetBirdValidationError, client.users.approve, waiting[0]["id"])
client.users.delete(waiting[0]["id"])
print("approval")

account = models.Account.model_validate(client.accounts.list()[0])
settings = client.accounts.list()[0]["settings"]
changed = client.put(f"accounts/{account.id}", data={"settings": {**settings, "peer_login_expiration": 7200}})
assert changed["settings"]["peer_login_expiration"] == 7200
assert client.accounts.list()[0]["settings"] == changed["settings"]
print("account")

models.Peer.model_validate(client.peers.get(peer))
assert client.peers.update(peer, models.PeerUpdate(name="www", ssh_enabled=False))["name"] == "www"
on = models.PeerUpdate(name="www", ssh_enabled=True)
assert refused(NetBirdValidationError, client.peers.update, peer, on).status_code == 422
assert [one["id"] for one in client.peers.list(name="www")] == [peer]
assert client.peers.list(name="nobody") == []
assert peer not in [other["id"] for other in client.peers.get_accessible_peers(peer)]
assert client.peers.list_jobs(peer) == []
key = base64.b64encode(bytes(range(1, 33))).decode()
access = client.peers.create_temporary_access(peer, {"name": "guest", "wg_pub_key": key, "rules": ["tcp/22", "udp/8000-8010"]})
assert access["name"] == "guest" and access["rules"] == ["tcp/22", "udp/8000-8010"]
assert peer in [other["id"] for other in client.peers.get_accessible_peers(access["id"])]
assert {rule["name"] for rule in client.policies.get(access["id"])["rules"]} == {"tcp/22", "udp/8000-8010"}
wrong = {"name": "guest", "wg_pub_key": key, "rules": ["tcp/0"]}
assert refused(NetBirdValidationError, client.peers.create_temporary_access, peer, wrong).status_code == 422
client.peers.delete(access["id"])
refused(NetBirdNotFoundError, client.policies.get, access["id"])
print("temporary access")
client.peers.delete(peer)
refused(NetBirdNotFoundError, client.peers.get, peer)
print("peer")

countries = client.geo_locations.list_countries()
assert "SE" in countries and all(len(code) == 2 for code in countries)
assert {"geoname_id": 2694762, "city_name": "Linköping"} in client.geo_locations.list_cities("SE")
assert client.geo_locations.list_cities("ZZ") == []
print("places")

for model, events in ((models.AuditEvent, client.events.get_audit_events()),):
    assert events
    for event in events:
        model.model_validate(event)
assert client.events.get_proxy_events(page_size=10) == [] == client.events.get_network_traffic_events(page=1)
assert client.identity_providers.list() == [] == client.cloud.services.list() == client.cloud.services.list_clusters()
assert client.cloud.services.list_domains() == [] == client.cloud.ingress.list_peers()
assert client.instance.get_version()["management_current_version"]
assert bearer.users.get_current()["is_current"]
print("events and the rest")

invited = models.UserInviteCreate(email="bea@example.org", name="Bea", role="user", auto_groups=[group], expires_in=7200)
invite = client.users.create_invite(invited)
assert models.UserInvite.model_validate(invite).invite_token
assert refused(NetBirdValidationError, client.users.create_invite, invited).status_code == 409
# The package wants some token; an invitation is its own.
anybody = APIClient(host=server, api_token="none")
shown = anybody.users.get_invite_info(invite["invite_token"])
assert (shown["email"], shown["valid"]) == ("bea@example.org", True), shown
again = client.users.regenerate_invite(invite["id"], expires_in=3600)
refused(NetBirdNotFoundError, anybody.users.get_invite_info, invite["invite_token"])
assert client.users.regenerate_invite(invite["id"])["invite_token"] != again["invite_token"]
link = client.users.regenerate_invite(invite["id"])["invite_token"]
refused(NetBirdValidationError, anybody.users.accept_invite, link, "short")
assert anybody.users.accept_invite(link, PASSWORD) == {"success": True}
refused(NetBirdNotFoundError, anybody.users.accept_invite, link, PASSWORD)
taken_back = client.users.create_invite(invited.model_copy(update={"email": "eve@example.org"}))
client.users.delete_invite(taken_back["id"])
refused(NetBirdNotFoundError, anybody.users.get_invite_info, taken_back["invite_token"])
assert client.users.list_invites() == []
print("invitation")


def logged_in(password):
    """The package has no login by password: NetBird's is its identity provider's."""
    login = anybody.post("login/password", data={"email": "bea@example.org", "password": password})
    return APIClient(host=server, api_token=login["token"], auth_scheme="Bearer")


bea = logged_in(PASSWORD)
own = bea.users.get_current()
assert own["auto_groups"] == [group]
assert bea.users.change_password(own["id"], PASSWORD, "another password") is None
refused(NetBirdAuthenticationError, bea.users.get_current)
refused(NetBirdAuthenticationError, logged_in, PASSWORD)
assert logged_in("another password").users.get_current()["id"] == own["id"]
client.users.delete(own["id"])
print("password")

assert client.instance.get_status() == {"setup_required": True}
made = client.instance.setup("olga@example.org", PASSWORD, "Olga")
assert made["email"] == "olga@example.org" and client.users.get(made["user_id"])["role"] == "owner"
assert client.users.get_current()["role"] == "admin", "who made it hands the role over"
assert client.instance.get_status() == {"setup_required": False}
print("instance")

refused(NetBirdAuthenticationError, APIClient(host=server, api_token="nbp_wrong").groups.list)
assert refused(NetBirdValidationError, client.groups.create, models.GroupCreate(name="All")).status_code == 409
assert refused(NetBirdValidationError, client.groups.create, models.GroupCreate(name="x", peers=["nobody"])).status_code == 422
assert refused(NetBirdValidationError, client.networks.create_router, network, {"metric": "low"}).status_code == 400
refused(NetBirdNotFoundError, client.policies.get, "nothing")
print("refusals")
sys.stdout.flush()

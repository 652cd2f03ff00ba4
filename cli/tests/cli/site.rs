//! A small account: two gateways before one site, two people, a web server.

use serde_json::{Value, json};

use crate::fake::Data;

pub(crate) fn data() -> Data {
    Data {
        user: json!({"id": "u1", "name": "bootstrap", "email": "", "role": "owner", "is_service_user": true}),
        peers: vec![
            peer("p1", "alice-laptop", "100.90.0.2", true, &[("g1", "engineering")]),
            peer("p2", "bob-laptop", "100.90.0.3", false, &[]),
            peer("p3", "gw-a", "100.90.0.4", true, &[("g2", "gateways")]),
            peer("p4", "gw-b", "100.90.0.5", true, &[("g2", "gateways")]),
        ],
        groups: vec![
            group(
                "g0",
                "All",
                &[("p1", "alice-laptop"), ("p2", "bob-laptop"), ("p3", "gw-a"), ("p4", "gw-b")],
                &[],
            ),
            group("g1", "engineering", &[("p1", "alice-laptop")], &[]),
            group("g2", "gateways", &[("p3", "gw-a"), ("p4", "gw-b")], &[]),
            group("g3", "web", &[], &["r1"]),
        ],
        policies: vec![
            json!({"id": "y0", "name": "Default", "description": "", "enabled": false, "source_posture_checks": [], "rules": [
                {"id": "y0", "name": "Default", "description": "", "enabled": true, "action": "accept",
                 "bidirectional": true, "protocol": "all", "sources": [{"id": "g0", "name": "All"}],
                 "destinations": [{"id": "g0", "name": "All"}]}]}),
            json!({"id": "y1", "name": "users-to-web", "description": "browsers", "enabled": true,
                "source_posture_checks": ["c1"], "rules": [
                {"id": "l1", "name": "https", "description": "", "enabled": true, "action": "accept",
                 "bidirectional": false, "protocol": "tcp", "ports": ["443"],
                 "sources": [{"id": "g1", "name": "engineering"}], "destinations": [{"id": "g3", "name": "web"}]},
                {"id": "l2", "name": "no telnet", "description": "", "enabled": true, "action": "drop",
                 "bidirectional": false, "protocol": "tcp", "port_ranges": [{"start": 23, "end": 23}],
                 "sources": [{"id": "g1", "name": "engineering"}], "destinationResource": {"id": "r1", "type": "host"}}]}),
        ],
        posture_checks: vec![
            json!({"id": "c1", "name": "disk encrypted", "description": "", "checks": {
                "process_check": {"processes": [{"linux_path": "/usr/bin/luksd"}]},
                "geo_location_check": {"locations": [{"country_code": "DE"}], "action": "allow"}}}),
            json!({"id": "c2", "name": "kernel", "description": "",
                "checks": {"os_version_check": {"linux": {"min_kernel_version": "6.1"}}}}),
        ],
        networks: vec![
            json!({"id": "n1", "name": "berlin", "description": "the site", "resources": ["r1"], "routers": ["t1", "t2"]}),
        ],
        resources: vec![(
            "n1".into(),
            json!({"id": "r1", "name": "web-1", "description": "", "address": "10.20.0.10/32", "type": "host",
                   "enabled": true, "groups": [{"id": "g3", "name": "web"}]}),
        )],
        routers: vec![
            (
                "n1".into(),
                json!({"id": "t2", "peer": "p4", "metric": 200, "masquerade": true, "enabled": true}),
            ),
            (
                "n1".into(),
                json!({"id": "t1", "peer": "p3", "peer_groups": null, "metric": 100, "masquerade": true, "enabled": true}),
            ),
        ],
        setup_keys: vec![
            json!({"id": "k1", "key": "0A1B2****", "name": "laptops", "type": "reusable", "state": "valid", "used_times": 2,
                   "usage_limit": 0, "expires": "2026-11-23T11:00:00Z", "last_used": "2026-11-22T11:00:00Z", "auto_groups": ["g1"]}),
            json!({"id": "k2", "key": "9F8E7****", "name": "gw", "type": "one-off", "state": "overused", "used_times": 1,
                   "usage_limit": 1, "expires": "", "last_used": "0001-01-01T00:00:00Z", "auto_groups": []}),
        ],
        gateways: vec![gateway("p3", "gw-a", true, 7, 7), gateway("p4", "gw-b", true, 7, 6)],
        rules: json!([
            {"policy_id": "y1", "policy_name": "users-to-web", "rule_id": "l1", "rule_name": "https", "action": "accept",
             "flows": 12, "drops": 0, "packets": 34567, "bytes": 12_345_678},
            {"policy_id": "y1", "policy_name": "users-to-web", "rule_id": "l2", "rule_name": "no telnet", "action": "drop",
             "flows": 0, "drops": 3, "packets": 0, "bytes": 0}]),
        audit: vec![
            json!({"id": "1", "timestamp": "2026-11-22T11:00:00Z", "activity": "Group created", "activity_code": "group.add",
                   "initiator_id": "u1", "initiator_name": "bootstrap", "initiator_email": "", "target_id": "g1", "meta": {"name": "engineering"}}),
            json!({"id": "2", "timestamp": "2026-11-22T11:30:00Z", "activity": "Policy created", "activity_code": "policy.add",
                   "initiator_id": "u1", "initiator_name": "bootstrap", "initiator_email": "", "target_id": "y1", "meta": {}}),
        ],
        ..Data::default()
    }
}

fn peer(id: &str, name: &str, ip: &str, connected: bool, groups: &[(&str, &str)]) -> Value {
    json!({"id": id, "name": name, "hostname": name, "ip": ip, "ipv6": format!("fd5c:1::{}", &id[1..]), "connected": connected,
           "last_seen": "2026-11-22T11:50:00Z", "os": "linux", "version": "0.1.0", "groups": named(groups),
           "posture_failures": if id == "p1" { json!([{"id": "c1", "name": "disk encrypted", "checks": ["process"],
                                                       "reason": "/usr/bin/luksd is not running"}]) } else { json!([]) }})
}

fn group(id: &str, name: &str, peers: &[(&str, &str)], resources: &[&str]) -> Value {
    let resources: Vec<Value> = resources.iter().map(|id| json!({"id": id, "type": "host"})).collect();
    json!({"id": id, "name": name, "issued": "api", "peers": named(peers), "resources": resources,
           "peers_count": peers.len(), "resources_count": resources.len()})
}

fn gateway(id: &str, name: &str, connected: bool, wanted: u64, applied: u64) -> Value {
    json!({"id": id, "name": name, "role": "gateway", "connected": connected, "ip": "100.90.0.4", "ipv6": "fd5c:1::4",
           "endpoint": "192.0.2.4:51820", "os": "linux", "kernel_version": "6.1.0", "version": "0.1.0", "datapath": "ebpf",
           "networks": [{"network_id": "n1", "network_name": "berlin", "router_id": "t1", "metric": if id == "p3" {100} else {200},
                         "masquerade": true, "enabled": true}],
           "image": {"revision_wanted": wanted, "revision_applied": applied, "hash_wanted": "ab", "hash_applied": "ab",
                     "in_sync": wanted == applied, "apply_time_ms": 1.25, "applied_at": "2026-11-22T11:59:00Z",
                     "last_refusal": null, "compile_error": null},
           "counters": {"flows": 3, "flows_started": 40, "packets_forwarded": 34567, "bytes_forwarded": 12_345_678,
                        "packets_dropped": 1203, "flow_events_lost": 0},
           "drops": {"no_rule": 1200, "drop_rule": 3, "malformed": 0}, "degraded": [],
           "links": [{"peer_id": "p1", "peer_name": "alice-laptop", "endpoint": "192.0.2.9:4711",
                      "last_handshake": "2026-11-22T11:59:15Z", "live": true}],
           "last_report": "2026-11-22T11:59:58Z", "last_seen": "2026-11-22T10:00:00Z"})
}

fn named(items: &[(&str, &str)]) -> Vec<Value> {
    items.iter().map(|(id, name)| json!({"id": id, "name": name})).collect()
}

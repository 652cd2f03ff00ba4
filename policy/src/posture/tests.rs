//! The cases of NetBird's posture tests, by the names of our reference, and where we differ with the reason.

use super::*;

fn checks(json: serde_json::Value) -> Checks {
    serde_json::from_value::<Checks>(json).unwrap().validated().unwrap()
}

fn refused(json: serde_json::Value) -> String {
    match serde_json::from_value::<Checks>(json) {
        Ok(checks) => checks.validated().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

fn linux(live: Live) -> Facts {
    Facts {
        os: "linux".into(),
        kernel_version: "6.1.0-18-amd64".into(),
        live: Some(live),
        ..Facts::default()
    }
}

fn place(country: &str, city: &str) -> Facts {
    let place = Place { country_code: country.into(), city_name: city.into(), geoname_id: 0 };
    linux(Live { place: Some(place), ..Live::default() })
}

fn addresses(interfaces: &[&str], connection: &str) -> Facts {
    let addresses = interfaces.iter().map(|address| address.parse().unwrap()).collect();
    linux(Live { addresses: Some(addresses), connection_ip: connection.parse().ok(), ..Live::default() })
}

fn running(processes: &[(&str, ProcessState)]) -> Facts {
    let processes = processes.iter().map(|(path, state)| ((*path).to_owned(), *state)).collect();
    linux(Live { processes, ..Live::default() })
}

/// Passes, or fails for a reason with this in it.
#[track_caller]
fn judged(checks: &Checks, facts: &Facts, expected: Result<(), &str>) {
    let verdict = checks.judge(facts);
    match expected {
        Ok(()) => assert!(verdict.passed(), "{verdict}"),
        Err(reason) => assert!(verdict.to_string().contains(reason), "{reason}: {verdict:?}"),
    }
}

fn geo(action: &str, locations: serde_json::Value) -> Checks {
    checks(serde_json::json!({"geo_location_check": {"locations": locations, "action": action}}))
}

#[test]
fn g_1_a_city_is_allowed() {
    let check = geo("allow", serde_json::json!([{"country_code": "DE", "city_name": "Berlin"}]));
    judged(&check, &place("DE", "Berlin"), Ok(()));
    judged(&check, &place("DE", "Frankfurt"), Err("DE/Frankfurt, which is not among the allowed places"));
    judged(&check, &place("US", "Berlin"), Err("US/Berlin"));
}

#[test]
fn g_2_a_country_is_allowed() {
    let check = geo("allow", serde_json::json!([{"country_code": "DE"}]));
    judged(&check, &place("DE", "Berlin"), Ok(()));
    judged(&check, &place("DE", ""), Ok(()));
    judged(&check, &place("FR", ""), Err("it is in FR,"));
}

#[test]
fn g_3_places_are_denied() {
    let check = geo(
        "deny",
        serde_json::json!([{"country_code": "US", "city_name": "Boston"}, {"country_code": "DE"}]),
    );
    judged(&check, &place("DE", "Berlin"), Err("DE/Berlin, which is denied"));
    judged(&check, &place("US", "Boston"), Err("which is denied"));
    judged(&check, &place("US", "Newark"), Ok(()));
    judged(&check, &place("FR", ""), Ok(()));
}

#[test]
fn g_4_a_place_that_is_not_known_fails_whatever_the_action() {
    for action in ["allow", "deny"] {
        let check = geo(action, serde_json::json!([{"country_code": "DE", "city_name": "Berlin"}]));
        judged(&check, &addresses(&[], "192.0.2.1"), Err("not known where 192.0.2.1 is"));
        judged(&check, &addresses(&[], "2001:db8::1"), Err("not known where 2001:db8::1 is"));
        judged(&check, &addresses(&[], ""), Err("connects from is not known"));
        // A database of countries says nothing of cities: that is a missing fact as well, where a city decides.
        judged(&check, &place("DE", ""), Err("its city in DE is not known"));
        judged(&check, &Facts { os: "linux".into(), ..Facts::default() }, Err("not heard from lately"));
    }
}

/// NetBird compares codes by case, and takes lower-case ones that then never match, which opens a denial.
#[test]
fn countries_and_cities_are_the_same_in_either_case() {
    let check = geo("deny", serde_json::json!([{"country_code": "de", "city_name": "BERLIN"}]));
    judged(&check, &place("DE", "Berlin"), Err("which is denied"));
    assert_eq!(check.location.unwrap().locations[0].country_code, "DE");
}

#[test]
fn v_1_and_v_2_the_agent_has_a_least_version() {
    let agent = |version: &str| Facts { version: version.into(), ..Facts::default() };
    let check = checks(serde_json::json!({"nb_version_check": {"min_version": "1.0.0"}}));
    judged(&check, &agent("1.0.1"), Ok(()));
    judged(&check, &agent("0.9.9"), Err("the agent is of version 0.9.9, below 1.0.0"));
    judged(&check, &agent("x.y.z"), Err("cannot be compared"));
    judged(&check, &agent(""), Err("not known"));
    judged(&check, &agent("1.0.0-rc.1"), Err("below 1.0.0"));
    // NetBird lets these pass, whatever they are of. An agent that says nothing of its age is not known to be new enough.
    judged(&check, &agent("development"), Err("cannot be compared"));
    let check = checks(serde_json::json!({"nb_version_check": {"min_version": "2.0"}}));
    judged(&check, &agent("2.0.9"), Ok(()));
}

fn system(os: &str, version: &str, kernel: &str) -> Facts {
    Facts { os: os.into(), os_version: version.into(), kernel_version: kernel.into(), ..Facts::default() }
}

#[test]
fn o_1_to_o_3_systems_have_least_versions() {
    let check = checks(serde_json::json!({"os_version_check": {
        "linux": {"min_kernel_version": "6.0.0"}, "darwin": {"min_version": "15"}, "ios": {"min_version": "17.3.1"},
        "windows": {"min_kernel_version": "10.0.19045.3000"}}}));
    judged(&check, &system("linux", "12", "6.1.1"), Ok(()));
    judged(&check, &system("linux", "12", "6.5.11-linuxkit"), Ok(()));
    judged(
        &check,
        &system("linux", "12", "5.10.0-28-amd64"),
        Err("its Linux kernel is of version 5.10.0-28-amd64, below 6.0.0"),
    );
    judged(&check, &system("linux", "12", ""), Err("the version of its Linux kernel is not known"));
    judged(&check, &system("linux", "12", "six"), Err("cannot be compared"));
    judged(&check, &system("darwin", "14.2.1", "23.2.0"), Err("macOS is of version 14.2.1, below 15"));
    judged(&check, &system("macos", "15.0", "24.0.0"), Ok(()));
    judged(&check, &system("windows", "11", "10.0.19045.3803"), Ok(()));
    judged(&check, &system("windows", "10", "10.0.19045.2965"), Err("below 10.0.19045.3000"));
    judged(&check, &system("ios", "17.3.1", ""), Ok(()));
    judged(&check, &system("android", "14", "6.1"), Err("android, is not among those that the check names"));
}

/// NetBird lets every system pass that it has no sub-check for. A check that cannot be made is not passed.
#[test]
fn o_4_a_system_that_checks_do_not_know_fails() {
    let check = checks(serde_json::json!({"os_version_check": {"linux": {"min_kernel_version": "6"}}}));
    judged(&check, &system("freebsd", "14.1", "14.1-RELEASE"), Err("freebsd, is not among"));
    judged(&check, &system("", "", "6.12"), Err("its operating system is not known"));
}

fn range(action: &str, ranges: &[&str]) -> Checks {
    checks(serde_json::json!({"peer_network_range_check": {"ranges": ranges, "action": action}}))
}

#[test]
fn n_1_to_n_6_an_address_is_in_a_range() {
    for (net, wide, host, other) in [
        ("192.168.0.0/24", "192.168.0.0/16", "192.168.0.123/24", "10.0.0.7/8"),
        ("2001:db8:0:7::/64", "2001:db8::/32", "2001:db8:0:7::123/64", "fd00::7/8"),
    ] {
        let facts = addresses(&[other, host], "");
        judged(&range("allow", &[net]), &facts, Ok(()));
        judged(&range("allow", &[wide]), &facts, Ok(()));
        judged(&range("deny", &[net]), &facts, Err("which is denied"));
        judged(&range("deny", &[wide]), &facts, Err("which is denied"));
        let elsewhere = addresses(&[other], "");
        judged(&range("allow", &[net]), &elsewhere, Err("is in an allowed range"));
        judged(&range("deny", &[net]), &elsewhere, Ok(()));
    }
    let public = addresses(&[], "109.41.115.194");
    judged(&range("deny", &["109.41.115.194/32"]), &public, Err("109.41.115.194 is in 109.41.115.194/32"));
    judged(&range("deny", &["109.41.115.194/32"]), &addresses(&[], "::ffff:109.41.115.194"), Err("denied"));
    judged(&range("deny", &["2001:db8::1/128"]), &addresses(&[], "2001:db8::1"), Err("denied"));
    let nets = range("allow", &["1.0.0.0/24", "3.0.0.0/23"]);
    judged(&nets, &addresses(&[], "1.0.0.55"), Ok(()));
    judged(&nets, &addresses(&[], "3.0.1.200"), Ok(()));
    judged(&nets, &addresses(&[], "1.0.1.5"), Err("none of its addresses (1.0.1.5)"));
}

/// NetBird asks for the whole prefix of an interface, so that a range of one host, which its API offers, never matches one.
#[test]
fn a_range_of_one_host_matches_the_interface_that_has_it() {
    for (host, interface) in [("192.168.0.5/32", "192.168.0.5/24"), ("2001:db8::5/128", "2001:db8::5/64")] {
        judged(&range("deny", &[host]), &addresses(&[interface], ""), Err("which is denied"));
        judged(&range("allow", &[host]), &addresses(&[interface], ""), Ok(()));
    }
}

#[test]
fn n_7_without_an_address_either_action_fails() {
    for action in ["allow", "deny"] {
        let check = range(action, &["10.0.0.0/8"]);
        judged(&check, &addresses(&[], ""), Err("no address to look at"));
        let unsaid = linux(Live { connection_ip: "192.0.2.1".parse().ok(), ..Live::default() });
        judged(&check, &unsaid, Err("addresses of its interfaces are not known"));
        judged(&check, &Facts::default(), Err("not heard from lately"));
    }
}

fn two_processes() -> Checks {
    checks(serde_json::json!({"process_check": {"processes": [
        {"linux_path": "/usr/bin/one", "mac_path": "/Applications/one"},
        {"linux_path": "/usr/bin/two", "windows_path": "C:\\two.exe"}]}}))
}

#[test]
fn x_1_every_process_runs() {
    use ProcessState::*;
    let check = two_processes();
    let with = |two| running(&[("/usr/bin/one", Running), ("/usr/bin/two", two)]);
    judged(&check, &with(Running), Ok(()));
    judged(&check, &with(Stopped), Err("/usr/bin/two is not running"));
    judged(&check, &with(Absent), Err("/usr/bin/two is not there"));
    judged(&check, &with(Hidden), Err("may not see"));
    judged(&check, &running(&[("/usr/bin/one", Running)]), Err("not said yet whether /usr/bin/two"));
    judged(&check, &Facts { os: "linux".into(), ..Facts::default() }, Err("not heard from lately"));
}

#[test]
fn x_3_a_system_without_processes_to_look_at_fails() {
    for os in ["ios", "android", "freebsd", "darwin"] {
        let facts = Facts { os: os.into(), ..running(&[("/Applications/one", ProcessState::Running)]) };
        let expected = if os == "freebsd" { "not among" } else { "names no process for" };
        judged(&two_processes(), &facts, Err(expected));
    }
}

#[test]
fn every_check_must_pass_and_each_failure_is_told() {
    let check = checks(serde_json::json!({"nb_version_check": {"min_version": "1"},
        "os_version_check": {"linux": {"min_kernel_version": "7"}}, "process_check": {"processes": [{"linux_path": "/x"}]}}));
    let facts = Facts { version: "1.2".into(), ..running(&[]) };
    let kinds: Vec<Kind> = check.judge(&facts).failures.into_iter().map(|failure| failure.kind).collect();
    assert_eq!(kinds, [Kind::OsVersion, Kind::Process]);
}

#[test]
fn a_6_what_cannot_be_a_check_is_refused() {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    for (text, word) in [
        (r#"{}"#, "must not be empty"),
        (r#"{"nb_version_check": {"min_version": "not a version"}}"#, "nb_version_check.min_version"),
        (r#"{"nb_version_check": {}}"#, "min_version"),
        (r#"{"nb_versoin_check": {"min_version": "1"}}"#, "unknown field"),
        (r#"{"os_version_check": {}}"#, "os_version_check"),
        (r#"{"os_version_check": {"plan9": {"min_version": "4"}}}"#, "plan9"),
        (r#"{"os_version_check": {"linux": {"min_version": "6"}}}"#, "min_version"),
        (r#"{"os_version_check": {"linux": {"min_kernel_version": "6.x"}}}"#, "linux.min_kernel_version"),
        (r#"{"geo_location_check": {"locations": [{"country_code": "DE"}], "action": "permit"}}"#, "permit"),
        (r#"{"geo_location_check": {"locations": [{"country_code": "DE"}]}}"#, "action"),
        (r#"{"geo_location_check": {"locations": [], "action": "allow"}}"#, "locations must not be empty"),
        (r#"{"geo_location_check": {"locations": [{"country_code": "DEU"}], "action": "deny"}}"#, "DEU"),
        (
            r#"{"geo_location_check": {"locations": [{"city_name": "Berlin"}], "action": "deny"}}"#,
            "country_code",
        ),
        (r#"{"peer_network_range_check": {"ranges": ["10.0.0.0/33"], "action": "deny"}}"#, "invalid"),
        (r#"{"peer_network_range_check": {"ranges": [], "action": "deny"}}"#, "ranges must not be empty"),
        (
            r#"{"peer_network_range_check": {"ranges": ["::ffff:10.0.0.0/104"], "action": "deny"}}"#,
            "IPv4-mapped",
        ),
        (r#"{"process_check": {"processes": []}}"#, "processes must not be empty"),
        (r#"{"process_check": {"processes": [{"linux_path": ""}]}}"#, "needs linux_path"),
        (r#"{"process_check": {"processes": [{"linux_path": "sshd"}]}}"#, "begin at the root"),
        (r#"{"process_check": {"processes": [{"mac_path": "/a\u0007b"}]}}"#, "control character"),
    ] {
        let said = refused(json(text));
        assert!(said.contains(word), "{text}: {said}");
    }
}

#[test]
fn checks_are_written_as_they_are_read() {
    let text = r#"{"nb_version_check":{"min_version":"0.1"},"os_version_check":{"android":{"min_version":"13"},"linux":{"min_kernel_version":"5.3.3"}},"geo_location_check":{"locations":[{"country_code":"DE","city_name":"Berlin"},{"country_code":"FR"}],"action":"allow"},"peer_network_range_check":{"ranges":["192.168.1.0/24","2001:db8::/32"],"action":"deny"},"process_check":{"processes":[{"linux_path":"/usr/bin/x","windows_path":"C:\\x.exe"}]}}"#;
    let parsed = checks(serde_json::from_str(text).unwrap());
    assert_eq!(serde_json::to_string(&parsed).unwrap(), text);
    assert_eq!(parsed.watched(Platform::Linux).collect::<Vec<_>>(), ["/usr/bin/x"]);
    assert_eq!(parsed.watched(Platform::Darwin).count(), 0);
}

//! What an audit event can be about.

macro_rules! activities {
    ($($variant:ident $code:literal $text:literal,)*) => {
        /// What an audit event can be about; the codes are those NetBird's clients know, where it has one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Activity { $(#[doc = $text] $variant,)* }

        impl Activity {
            /// Each of them.
            pub const ALL: &[Activity] = &[$(Activity::$variant),*];

            /// The stable code.
            pub fn code(self) -> &'static str {
                match self { $(Activity::$variant => $code,)* }
            }

            /// The sentence behind a code; empty for a code of another version.
            pub fn text_of(code: &str) -> &'static str {
                match code {
                    $($code => $text,)*
                    // As the first versions wrote them.
                    "peer.update" => "Peer updated",
                    "setupkey.update" => "Setup key updated",
                    "user.update" => "User updated",
                    _ => "",
                }
            }
        }
    };
}

activities! {
    AccountCreate "account.create" "Account created",
    AccountSettingsUpdate "account.settings.update" "Account settings updated",
    LoginExpirationEnable "account.setting.peer.login.expiration.enable" "Expiration of peers' logins enabled",
    LoginExpirationDisable "account.setting.peer.login.expiration.disable" "Expiration of peers' logins disabled",
    LoginExpirationUpdate "account.setting.peer.login.expiration.update" "Time of peers' logins updated",
    InactivityExpirationEnable "account.peer.inactivity.expiration.enable" "Expiration of inactive peers enabled",
    InactivityExpirationDisable "account.peer.inactivity.expiration.disable" "Expiration of inactive peers disabled",
    InactivityExpirationUpdate "account.peer.inactivity.expiration.update" "Time of inactive peers updated",
    PeerApprovalEnable "account.setting.peer.approval.enable" "Approval of new peers enabled",
    PeerApprovalDisable "account.setting.peer.approval.disable" "Approval of new peers disabled",
    GroupPropagationEnable "account.setting.group.propagation.enable" "Propagation of users' groups enabled",
    GroupPropagationDisable "account.setting.group.propagation.disable" "Propagation of users' groups disabled",
    RoutingPeerDnsEnable "account.setting.routing.peer.dns.resolution.enable" "Name resolution by routing peers enabled",
    RoutingPeerDnsDisable "account.setting.routing.peer.dns.resolution.disable" "Name resolution by routing peers disabled",
    LazyConnectionEnable "account.setting.lazy.connection.enable" "Connections on demand enabled",
    LazyConnectionDisable "account.setting.lazy.connection.disable" "Connections on demand disabled",
    PeerExposeEnable "account.setting.peer.expose.enable" "Services exposed by peers enabled",
    PeerExposeDisable "account.setting.peer.expose.disable" "Services exposed by peers disabled",
    LocalMfaEnable "account.setting.local.mfa.enable" "One-time codes asked of every built-in user",
    LocalMfaDisable "account.setting.local.mfa.disable" "One-time codes left to each built-in user",
    AutoUpdateAlwaysEnable "account.setting.auto.update.always.enable" "Updates without asking enabled",
    AutoUpdateAlwaysDisable "account.setting.auto.update.always.disable" "Updates without asking disabled",
    AutoUpdateVersion "account.settings.auto.version.update" "Version of automatic updates updated",
    DnsDomainUpdate "account.dns.domain.update" "Zone of peers' names updated",
    AccountNetworkRangeUpdate "account.network.range.update" "Account network range updated",
    GroupAdd "group.add" "Group created",
    GroupUpdate "group.update" "Group updated",
    GroupDelete "group.delete" "Group deleted",
    NetworkCreate "network.create" "Network created",
    NetworkUpdate "network.update" "Network updated",
    NetworkDelete "network.delete" "Network deleted",
    ResourceCreate "network.resource.create" "Network resource created",
    ResourceUpdate "network.resource.update" "Network resource updated",
    ResourceDelete "network.resource.delete" "Network resource deleted",
    ResourceAddresses "network.resource.addresses" "Addresses of a domain resource changed",
    ResourceGroupAdd "resource.group.add" "Resource added to group",
    ResourceGroupDelete "resource.group.delete" "Resource removed from group",
    RouterCreate "network.router.create" "Network router created",
    RouterUpdate "network.router.update" "Network router updated",
    RouterDelete "network.router.delete" "Network router deleted",
    PeerAdd "peer.setupkey.add" "Peer added with a setup key",
    PeerRename "peer.rename" "Peer renamed",
    PeerSshEnable "peer.ssh.enable" "SSH to the peer enabled",
    PeerSshDisable "peer.ssh.disable" "SSH to the peer disabled",
    PeerLoginExpirationEnable "peer.login.expiration.enable" "Expiration of the peer's login enabled",
    PeerLoginExpirationDisable "peer.login.expiration.disable" "Expiration of the peer's login disabled",
    PeerInactivityExpirationEnable "peer.inactivity.expiration.enable" "Expiration of the inactive peer enabled",
    PeerInactivityExpirationDisable "peer.inactivity.expiration.disable" "Expiration of the inactive peer disabled",
    PeerIpUpdate "peer.ip.update" "Peer address updated",
    PeerGroupAdd "peer.group.add" "Group added to peer",
    PeerGroupDelete "peer.group.delete" "Group removed from peer",
    PeerApprove "peer.approve" "Peer approved",
    PeerApprovalRevoke "peer.approval.revoke" "Peer approval revoked",
    PeerEndpointUpdate "peer.endpoint.update" "Peer endpoint updated",
    PeerPostureFail "peer.posture.fail" "Peer fails a posture check",
    PeerPosturePass "peer.posture.pass" "Peer passes a posture check",
    PeerDelete "user.peer.delete" "Peer deleted",
    PolicyAdd "policy.add" "Policy created",
    PolicyUpdate "policy.update" "Policy updated",
    PolicyDelete "policy.delete" "Policy deleted",
    PolicyFileApply "policy.file.apply" "Policy file applied",
    PolicyFileRollback "policy.file.rollback" "Policies brought back to an earlier revision",
    BreakGlassOn "policy.breakglass.on" "Break-glass policy turned on",
    BreakGlassOff "policy.breakglass.off" "Break-glass policy turned off",
    BreakGlassExpire "policy.breakglass.expire" "Break-glass policy turned off by itself",
    RouteAdd "route.add" "Route created",
    RouteUpdate "route.update" "Route updated",
    RouteDelete "route.delete" "Route deleted",
    NameserverGroupAdd "nameserver.group.add" "Nameserver group created",
    NameserverGroupUpdate "nameserver.group.update" "Nameserver group updated",
    NameserverGroupDelete "nameserver.group.delete" "Nameserver group deleted",
    DnsDisabledGroupAdd "dns.setting.disabled.management.group.add" "Group added to those whose DNS is not managed",
    DnsDisabledGroupDelete "dns.setting.disabled.management.group.delete" "Group removed from those whose DNS is not managed",
    ZoneCreate "dns.zone.create" "DNS zone created",
    ZoneUpdate "dns.zone.update" "DNS zone updated",
    ZoneDelete "dns.zone.delete" "DNS zone deleted",
    RecordCreate "dns.zone.record.create" "DNS record created",
    RecordUpdate "dns.zone.record.update" "DNS record updated",
    RecordDelete "dns.zone.record.delete" "DNS record deleted",
    PostureCheckCreate "posture.check.create" "Posture check created",
    PostureCheckUpdate "posture.check.update" "Posture check updated",
    PostureCheckDelete "posture.check.delete" "Posture check deleted",
    SetupKeyAdd "setupkey.add" "Setup key created",
    SetupKeyGroupAdd "setupkey.group.add" "Group added to setup key",
    SetupKeyGroupDelete "setupkey.group.delete" "Group removed from setup key",
    SetupKeyRevoke "setupkey.revoke" "Setup key revoked",
    SetupKeyOveruse "setupkey.overuse" "Setup key tried that was used up",
    SetupKeyDelete "setupkey.delete" "Setup key deleted",
    TokenCreate "personal.access.token.create" "Personal access token created",
    TokenDelete "personal.access.token.delete" "Personal access token deleted",
    PeerUserAdd "peer.user.add" "Peer added by a user's login",
    PeerLogin "user.peer.login" "User logged in on the peer",
    PeerLoginAdmit "peer.login.admit" "Machine let in by a user's login",
    PeerLoginRefuse "peer.login.refuse" "Machine turned away by a user",
    PeerLoginExpire "peer.login.expire" "Login of the peer expired",
    UserJoin "user.join" "User joined",
    UserApprove "user.approve" "User approved",
    UserReject "user.reject" "User rejected",
    DashboardLogin "dashboard.login" "User logged in",
    SessionEnd "user.session.end" "Login of user ended",
    InviteLinkCreate "user.invite.link.create" "Invitation created",
    InviteLinkAccept "user.invite.link.accept" "Invitation accepted",
    InviteLinkRegenerate "user.invite.link.regenerate" "Invitation renewed",
    InviteLinkDelete "user.invite.link.delete" "Invitation deleted",
    PasswordChange "user.password.change" "User password changed",
    PasswordReset "user.password.reset" "User password reset at the server",
    OneTimeCodesOn "user.totp.enable" "One-time codes switched on",
    OneTimeCodesOff "user.totp.disable" "One-time codes switched off",
    UserInvite "user.invite" "User invited",
    UserGroupAdd "user.group.add" "Group added to user",
    UserGroupDelete "user.group.delete" "Group removed from user",
    UserRoleUpdate "user.role.update" "User role updated",
    UserBlock "user.block" "User blocked",
    UserUnblock "user.unblock" "User unblocked",
    UserDelete "user.delete" "User deleted",
    OwnerTransfer "transferred.owner.role" "Owner role transferred",
    ServiceUserCreate "service.user.create" "Service user created",
    ServiceUserDelete "service.user.delete" "Service user deleted",
    AuditPrune "audit.prune" "Old audit events removed",
}

impl Activity {
    /// What a switch that was `before` and is `after` did, if it moved.
    pub(super) fn of_switch((before, after, on, off): (bool, bool, Self, Self)) -> Option<Self> {
        (before != after).then_some(if after { on } else { off })
    }
}

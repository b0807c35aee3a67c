//! libvirt's wire, pure: packets, XDR, message bodies, keepalive. No sockets here.

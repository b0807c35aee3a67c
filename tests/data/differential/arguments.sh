# Named and unnamed, too many and too few.
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH secret-define s.xml
VIRSH secret-dumpxml --secret 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-dumpxml --secret=3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-dumpxml -- 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-dumpxml
VIRSH secret-dumpxml 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 x
VIRSH secret-dumpxml --secret 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 x
VIRSH secret-dumpxml --secret
VIRSH secret-dumpxml --secret 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --secret 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-get-value --plain=1 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-get-value --plain --plain 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-list --nope
VIRSH secret-list x
VIRSH secret-define
VIRSH secret-define --validat s.xml
VIRSH secret-undefine
VIRSH secret-set-value
VIRSH nosuch
VIRSH --nope secret-list
VIRSH -c

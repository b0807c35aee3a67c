# UUIDs as they may be typed.
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH secret-define s.xml
VIRSH secret-dumpxml 00000000-0000-0000-0000-000000000001
VIRSH secret-dumpxml nope
VIRSH secret-dumpxml ''
VIRSH secret-dumpxml '3F6B2C1E7A544D0B9C1D5E8F00AA1234'
VIRSH secret-dumpxml ' 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 '
VIRSH secret-dumpxml '3f6b2c1e- 7a54- 4d0b- 9c1d- 5e8f00aa1234'
VIRSH secret-dumpxml '{3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234}'
VIRSH secret-dumpxml '3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa123'
VIRSH secret-dumpxml '3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa12345'
VIRSH secret-dumpxml '3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234-'

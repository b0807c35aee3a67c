# Its forms.
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH secret-define s.xml
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
printf 'a\000b\n\377' > v
VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file v --plain
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --plain | od -c
VIRSH -q secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --plain | od -c
VIRSH -q secret-get-value --secret 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-get-value 00000000-0000-0000-0000-000000000001
VIRSH secret-get-value nope

# The embedded driver keeps empty values
# daemon only
# Base64 that holds nothing.
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH secret-define s.xml
printf old > old
VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file old --plain
printf '!!' > nothing
VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file nothing
printf a > digit
VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file digit
: > empty
VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file empty
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --plain

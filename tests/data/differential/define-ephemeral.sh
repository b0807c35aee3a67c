# Nothing of it reaches the disk.
# daemon only
# One step: our embedded keystore forgets it with the process, which libvirtd does not.
echo "<secret ephemeral='yes'><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid></secret>" > e.xml
VIRSH secret-define e.xml
